; Six ways to shut a CPU down (a triple fault), chosen by -DWAY=0..5.  Each says
; what it is about to do; "still alive" is the sign of a failure.

%ifndef WAY
%error "WAY must be 0..5"
%endif

%include "inc/boot.inc"
%include "inc/console.inc"

%if WAY = 4 ; ------------------------------------------------- real mode
        WIDTH 16
entry16:
        PRINT   'shutdown 4: real mode, IVT limit 0, INT3', 10
        lidt    [empty]
        int3

%elif WAY = 3 ; -------------------------------------------- protected mode
entry16:
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     0x08:.prot
        WIDTH 32
.prot:  mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, 0x7000
        PRINT   'shutdown 3: protected mode, no IDT, INT3', 10
        lidt    [empty]
        int3

        align 8
gdt:    dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer:
        dw $ - gdt - 1
        dd gdt

%else ; --------------------------------------------------------- long mode
%include "inc/long.inc"
        WIDTH 64
main64: call    load_idt
        mov     ebx, on_any
        mov     eax, 6
        call    set_gate
        mov     eax, 13
        call    set_gate
        mov     eax, 14
        call    set_gate
        mov     eax, 8
        call    set_gate
%if WAY = 0
        PRINT   'shutdown 0: long mode, IDT limit 0, UD2', 10
        lidt    [empty]
        ud2
%elif WAY = 1
        PRINT   'shutdown 1: long mode, page fault, neither stack nor IDT mapped', 10
        lidt    [unmapped_idt]
        mov     rsp, WINDOW + 0x1000
        mov     al, [WINDOW]
%elif WAY = 2
        PRINT   'shutdown 2: long mode, gates of #UD, #NP and #DF not present', 10
        mov     byte [IDT + 6 * 16 + 5], 0x0E
        mov     byte [IDT + 8 * 16 + 5], 0x0E
        ud2
%elif WAY = 5
        PRINT   'shutdown 5: long mode, the stack grows into a page that is not there', 10
        mov     qword [PT_WINDOW + 8], PAGES | PTE_P | PTE_W
        mov     rsp, WINDOW + 0x2000
.push:  push    rax                     ; #PF, #PF, #DF: no handler has a stack
        jmp     .push
%endif

        align 8
unmapped_idt:
        dw 4095
        dq WINDOW
%include "inc/gates.inc"
%endif

on_any:
%if WAY != 4
        PRINT   'still alive', 10
%endif
        jmp     finish

        align 8
empty:  dw 0
        dq 0

%define CONSOLE_CODE
%include "inc/console.inc"
