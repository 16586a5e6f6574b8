; Benchmark guests: the same exception N times, in 64-bit mode, then the end.
;
;   -DUDLOOP   UD2, the handler skips it
;   -DPFLOOP   read of a page that is not present, the handler maps it and the
;              loop takes the mapping away again
;   -DINTLOOP  INT 41h
;   -DGPLOOP   read of an address that is not canonical, the handler skips it
;   -DN=...    how often
;   -DWAIT=... turns of an empty loop before each, in which nothing can be seen;
;              the guest says when it begins

%ifndef N
%define N 100000
%endif

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

        WIDTH 64
main64: call    load_idt
%ifdef UDLOOP
        mov     eax, 6
        mov     ebx, on_ud
%elifdef INTLOOP
        mov     eax, 0x41
        mov     ebx, on_int
%elifdef GPLOOP
        mov     eax, 13
        mov     ebx, on_gp
        mov     r14, 0x5555000000000000
%else
        mov     eax, 14
        mov     ebx, on_pf
%endif
        call    set_gate
        xor     r12d, r12d              ; exceptions seen
        mov     r13d, N
%ifdef WAIT
        PRINT   'BEGIN', 10
%endif
again:
%ifdef WAIT
        mov     ecx, WAIT
.turn:  dec     ecx
        jnz     .turn
%endif
%ifdef UDLOOP
        ud2
%elifdef INTLOOP
        int     0x41
%elifdef GPLOOP
        mov     [r14], eax
%else
        mov     al, [WINDOW]
        mov     qword [PT_WINDOW], 0
        invlpg  [WINDOW]
%endif
        dec     r13d
        jnz     again
        PRINT   'COUNT '
%ifdef UDLOOP
        PRINT   'ud='
%elifdef INTLOOP
        PRINT   'int='
%elifdef GPLOOP
        PRINT   'gp='
%else
        PRINT   'pf='
%endif
        mov     eax, r12d
        call    putdec
        call    newline
        jmp     finish

on_ud:  inc     r12d
        add     qword [rsp], 2
        iretq

on_int: inc     r12d
        iretq

on_gp:  inc     r12d
        add     qword [rsp + 8], 3
        add     rsp, 8
        iretq

on_pf:  inc     r12d
        mov     qword [PT_WINDOW], PAGES | PTE_P | PTE_W
        add     rsp, 8
        iretq

%define CONSOLE_CODE
%include "inc/console.inc"
%include "inc/gates.inc"
