; The fault matrix in real mode: every exception that exists there, with a whole
; interrupt table and with one that is too short, with odd stacks, single-stepped,
; in unreal mode, and all of it once more with the A20 gate closed.

%include "inc/boot.inc"
%include "inc/console.inc"
        section .strings
        section .triggers align=4
triggers_start:
        section .breaks align=4
breaks_start:
        section .text
%define REPORT_CODE
        WIDTH 16
%include "inc/report.inc"
%include "inc/table.inc"
%include "real/harness.inc"

entry16:
        mov     sp, STACK_MAIN
        call    bench_init
        mov     dword [ring], 'n'
        call    run_table
        call    run_unreal
        mov     byte [a20], 0           ; once more with the gate closed
        call    set_right
        mov     dword [ring], 'a'
        call    run_table
        call    show_a20
        mov     byte [a20], 2
        call    set_right
        call    show_a20
        call    report_end
        jmp     finish

; what lies at FFFF:0510, where an open gate shows another byte than 0000:0500
show_a20:
        push    0xFFFF
        pop     fs
        mov     dword [0x500], 0x600DF00D
        mov     dword [fs:0x510], 0x12345678
        mov     eax, [0x500]
        xor     edx, edx
        VALUE   'a20-alias'
        mov     eax, [fs:0x510]
        VALUE   'a20-above'
        ret

%include "inc/timer.inc"
%include "real/triggers.inc"
%include "real/unreal.inc"

%define CONSOLE_CODE
%include "inc/console.inc"

        section .triggers
triggers_end:
        section .breaks
breaks_end:
