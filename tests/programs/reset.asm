; Resets the machine in four ways (run without -no-reboot) and shows the processor
; as each reset leaves it, before the BIOS has touched anything.
;
; The reset vector below 4 GiB jumps to F000:E05B, which is shadow RAM.  QEMU's PC
; keeps the shadow RAM and its enables over a reset, so a jump written there brings
; the CPU back to this guest.  Should it be gone, the BIOS boots the disk again and
; the guest says so.

%include "inc/boot.inc"
%include "inc/console.inc"

BIOS            equ 0xF000
BIOS_ENTRY      equ 0xE05B
CMOS_BOOT       equ 0x7E                ; a byte of CMOS that nobody uses
PAM             equ 0x80000058          ; i440FX: 59h is for F0000h
MARK            equ 0x7E57BEEF

        WIDTH 16
entry16:
        mov     sp, 0x7000
        mov     al, CMOS_BOOT
        out     0x70, al
        in      al, 0x71
        cmp     al, 0x5A
        je      .again
        mov     al, CMOS_BOOT
        out     0x70, al
        mov     al, 0x5A
        out     0x71, al
        PRINT   'first boot', 10
        mov     dx, 0xCF8
        mov     eax, PAM
        out     dx, eax
        mov     dx, 0xCFD
        mov     al, 0x30
        out     dx, al
        push    BIOS
        pop     es
        mov     byte [es:BIOS_ENTRY], 0xEA      ; JMP 0:after_reset
        mov     dword [es:BIOS_ENTRY + 1], after_reset
        mov     dword [0x1000], 0               ; resets so far
        jmp     next_reset
.again: PRINT   'the BIOS booted again: shadow RAM is lost', 10
        jmp     done

after_reset:
        mov     [cs:0x1010], eax
        mov     [cs:0x1014], edx
        mov     [cs:0x1018], esp
        mov     [cs:0x101C], ds
        mov     [cs:0x1020], ss
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     esp, 0x7000
        PRINT   'reset '
        mov     eax, [0x1000]
        call    putdec
%macro SHOW 2                           ; name, address
        PRINT   ' ', %1, '='
        mov     eax, %2
        mov     cl, 8
        call    puthex
%endmacro
        SHOW    'eax', [0x1010]
        SHOW    'edx', [0x1014]
        SHOW    'esp', [0x1018]
        SHOW    'ds', [0x101C]
        SHOW    'ss', [0x1020]
        SHOW    'cr0', cr0
        SHOW    'cr2', cr2
        SHOW    'cr3', cr3
        SHOW    'cr4', cr4
        SHOW    'dr0', dr0
        SHOW    'dr6', dr6
        SHOW    'dr7', dr7
        pushfd
        pop     dword [0x1010]
        SHOW    'flags', [0x1010]
        sidt    [0x1030]
        SHOW    'idt', [0x1032]
%macro SHOW_MSR 2
        PRINT   ' ', %1, '='
        mov     ecx, %2
        rdmsr
        mov     cl, 8
        call    puthex
%endmacro
        SHOW_MSR 'efer', 0xC0000080
        SHOW_MSR 'hsave', 0xC0010117
        SHOW_MSR 'lstar', 0xC0000082
        SHOW_MSR 'kernelgs', 0xC0000102
        SHOW_MSR 'sysenter', 0x176
        SHOW    'ram', [0x400]
        call    newline

next_reset:
        mov     dword [0x400], MARK
        mov     eax, 0x90000                    ; what a reset has to clear
        xor     edx, edx
        mov     ecx, 0xC0010117
        wrmsr
        mov     ecx, 0xC0000082
        wrmsr
        mov     ecx, 0xC0000102
        wrmsr
        mov     ecx, 0x176
        wrmsr
        mov     ecx, 0xC0000080
        mov     eax, 0x901
        wrmsr
        mov     eax, 0x402
        mov     dr7, eax
        mov     dr0, eax
        mov     cr2, eax
        mov     eax, 0x628
        mov     cr4, eax
        mov     eax, [0x1000]
        inc     dword [0x1000]
        cmp     al, 1
        jb      .chipset
        je      .port92
        cmp     al, 3
        jb      .keyboard
        je      .triple_fault
        jmp     done
.chipset:
        mov     dx, 0xCF9
        mov     al, 2
        out     dx, al
        mov     al, 6
        out     dx, al
        jmp     .wait
.port92:
        in      al, 0x92
        and     al, 0xFE
        out     0x92, al
        or      al, 1
        out     0x92, al
        jmp     .wait
.keyboard:
        mov     al, 0xFE
        out     0x64, al
        jmp     .wait
.triple_fault:
        lidt    [.empty]
        int3
.wait:  hlt
        jmp     .wait
        align 8
.empty: dw 0
        dd 0

done:   mov     al, CMOS_BOOT                   ; for a next run with this CMOS
        out     0x70, al
        xor     al, al
        out     0x71, al
        PRINT   'done', 10
        jmp     finish

%define CONSOLE_CODE
%include "inc/console.inc"
