; What CPUID says about the CPU: the guest must not find SVM.  The leaves that
; depend on the host's load or on the order of CPUs are left out.

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

        WIDTH 64
main64: mov     r12d, leaves
.next:  mov     eax, [r12]
        push    rax
        mov     ecx, [r12 + 4]
        cpuid
        mov     r8d, eax
        mov     r9d, ebx
        mov     r10d, ecx
        mov     r11d, edx
        pop     rax
        cmp     eax, 1
        jne     .show
        and     r9d, 0x00FFFFFF         ; APIC id
.show:  PRINT   'cpuid '
        mov     cl, 8
        call    puthex
        PRINT   ':'
%assign n 8
%rep 4
        PRINT   ' '
        mov     eax, r %+ n %+ d
        call    puthex
%assign n n + 1
%endrep
        call    newline
        add     r12d, 8
        cmp     r12d, leaves_end
        jb      .next
        jmp     finish

        align 4
leaves: dd 0, 0, 1, 0, 5, 0, 6, 0, 7, 0, 13, 0, 13, 1
        dd 0x40000000, 0, 0x40000001, 0, 0x80000000, 0, 0x80000001, 0
        dd 0x80000002, 0, 0x80000008, 0, 0x8000000A, 0, 0x8000001F, 0
leaves_end:

%define CONSOLE_CODE
%include "inc/console.inc"
