; Raises some #UD, writes COUNT times the 32 bits VALUE to physical memory from PLACE on,
; and raises some #UD again, one after another for a while.

%ifndef COUNT
%define COUNT 1
%endif
%ifndef VALUE
%define VALUE 0
%endif
%define N 10

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

VIEW            equ WINDOW + 0x400000   ; a page of 2 MiB at PLACE
VIEW_ENTRY      equ PD_WINDOW + 16
PAGE            equ 1 << 21

        WIDTH 64
main64: call    load_idt
        mov     eax, 6
        mov     ebx, on_ud
        call    set_gate
        call    raise
        mov     rax, (PLACE & ~(PAGE - 1)) | PTE_P | PTE_W | PTE_PS
        mov     [VIEW_ENTRY], rax
        invlpg  [VIEW]
        mov     edi, VIEW + (PLACE & (PAGE - 1))
        mov     eax, VALUE
        mov     ecx, COUNT
        rep     stosd
        call    raise
        PRINT   'ALIVE', 10
        jmp     finish

raise:  mov     ebx, N
.next:  ud2
        mov     ecx, 1000000
.turn:  dec     ecx
        jnz     .turn
        dec     ebx
        jnz     .next
        ret

on_ud:  add     qword [rsp], 2
        iretq

%define CONSOLE_CODE
%include "inc/console.inc"
%include "inc/gates.inc"
