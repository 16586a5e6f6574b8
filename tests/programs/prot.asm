; The fault matrix in protected mode, with code segments of -DWIDTH_BITS=32 or 16
; and gates of the same size: without paging, with 32-bit and PAE paging, and with
; EFER.LME set while CR4.PAE is clear; with 32 bits in v8086 mode, too.
;
; Left out: task gates that work (and so broken handler stacks, whose #DF needs
; one); segment limits of data, which QEMU does not check.

%include "inc/boot.inc"
%include "inc/console.inc"
        section .strings
        section .triggers align=4
triggers_start:
        section .breaks align=4
breaks_start:
        section .text
%if WIDTH_BITS = 32
  %define KCODE CODE32
%else
  %define KCODE CODE16
%endif
%define REPORT_CODE
entry16:
        in      al, 0x92
        or      al, 2
        and     al, 0xFE
        out     0x92, al
        o32 lgdt [gdt_pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword KCODE:main

        WIDTH WIDTH_BITS
%include "inc/report.inc"
%include "inc/table.inc"
%include "prot/harness.inc"

main:   mov     eax, DATA
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, STACK_MAIN
        call    bench_init
%ifndef REFUSED                         ; which ends soon
        mov     byte [mode], 'f'        ; flat
        call    run_table
%endif
%ifdef ROM
        call    check_rom
%endif
        call    paging_32
        mov     byte [mode], 'p'        ; 32-bit paging
        call    run_table
%ifdef REFUSED
        call    long_mode_enable
        mov     byte [mode], 'm'        ; 32-bit paging, EFER.LME: QEMU allows it,
        call    run_table               ; but its VMRUN does not
        call    long_mode_disable
%endif
        call    paging_pae
        mov     byte [mode], 'e'        ; PAE paging
        call    run_table
        call    paging_off
        call    long_mode_enable
        mov     byte [mode], 'l'        ; no paging, EFER.LME
        call    run_table
%ifdef ROM
        call    check_rom
%endif
        call    long_mode_disable
        call    report_end
        jmp     finish

; After an exception: is the firmware below 4 GiB still what it was?  (In the mode
; with LME, QEMU 7.2 switches the translation of a monitor off on the way.)
check_rom:
        CASE    'rom'
        HERE
        ud2
        ENDCASE
        xor     eax, eax
        xor     edx, edx
        mov     esi, 0xFFFC0000
.add:   add     eax, [esi]
        adc     edx, 0
        rol     eax, 1
        add     esi, 4
        jnz     .add
        VALUE   'rom-sum'
        mov     eax, [dword 0xFFFFFFF0]
        mov     edx, [dword 0xFFFFFFF4]
        VALUE   'rom-end'
        ret

%include "inc/timer.inc"
%include "prot/breaks.inc"
%include "prot/triggers.inc"
%if WIDTH_BITS = 32
%include "prot/v86.inc"
%endif

%define CONSOLE_CODE
%include "inc/console.inc"

        section .triggers
triggers_end:
        section .breaks
breaks_end:
