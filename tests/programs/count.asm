; Raises a known number of each exception that 64-bit mode has an easy way to
; raise, and prints how many its handlers saw.  No other exception happens.

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

        WIDTH 64

; RAISE how often, vector, what: instruction...; the handler goes on behind it
%macro RAISE 4+
        mov     eax, %2
        mov     ebx, %%handler
        call    set_gate
        xor     r12d, r12d
        mov     r13d, %1
%%again:
        mov     r14, rsp
        %4
        nop
        PRINT   'nothing happened: '
%%handler:
        mov     rsp, r14                ; drop the frame
        push    2                       ; a trap flag must not survive
        popfq
        inc     r12d
        dec     r13d
        jnz     %%again
        PRINT   ' ', %3, '='
        mov     eax, r12d
        call    putdec
%endmacro

%macro SINGLE_STEP 0                    ; #DB follows the NOP
        push    0x102
        popfq
        nop
%endmacro

main64: call    load_idt
        xor     ebp, ebp
        mov     rbx, 0x8000000000000000 ; not canonical
        mov     r15, rbx
        PRINT   'COUNT'
        RAISE   10, 0, 'de', div ebp
        RAISE   11, 1, 'db', SINGLE_STEP
        RAISE   13, 3, 'bp', int3
        RAISE   20, 6, 'ud', ud2
        mov     rax, cr0
        or      al, 8                   ; TS
        mov     cr0, rax
        RAISE   17, 7, 'nm', fninit
        clts
        RAISE   23, 13, 'gp', mov al, [r15]
        RAISE   40, 14, 'pf', mov al, [WINDOW]
        call    newline
        jmp     finish

%define CONSOLE_CODE
%include "inc/console.inc"
%include "inc/gates.inc"
