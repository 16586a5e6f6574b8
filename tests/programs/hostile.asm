; A guest that attacks a monitor: writes to all of physical memory, to the
; registers of SVM, to the ports and PCI functions where something may hide, then
; raises exceptions faster than anybody can record them.  On a CPU without SVM all
; of that is harmless; the guest prints what it saw and, last, ALIVE.

%ifndef N
%define N 200000
%endif

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

PATTERN         equ 0x5A17AC4ED00D
VIEW            equ WINDOW + 0x400000   ; a page of 2 MiB, moved over physical memory
VIEW_ENTRY      equ PD_WINDOW + 16
MIB             equ 1 << 20
GIB             equ 1 << 30
BARS            equ 0xFD000000          ; from here to 4 GiB: devices and firmware
EFER            equ 0xC0000080
VM_CR           equ 0xC0010114
HSAVE_PA        equ 0xC0010117

        WIDTH 64
main64: call    load_idt
        mov     eax, 6
        mov     ebx, on_ud
        call    set_gate
        mov     eax, 13
        mov     ebx, on_gp
        call    set_gate
        xor     r12d, r12d              ; #UD seen
        xor     r13d, r13d              ; #GP seen
        call    attack_memory
        call    attack_svm
        call    attack_ports
        call    attack_pci
        call    attack_memory           ; again, in case something moved
        call    flood
        PRINT   'ALIVE', 10
        jmp     finish

; ---------------------------------------------------------------------- memory

; 2 MiB at RAX: pattern into the first and last quadword; R8 and R9 count how
; many of them read back
touch:  mov     rdx, rax
        or      rdx, PTE_P | PTE_W | PTE_PS
        mov     [VIEW_ENTRY], rdx
        invlpg  [VIEW]
        mov     rdx, PATTERN
        xor     rdx, rax
        mov     [VIEW], rdx
        cmp     [VIEW], rdx
        jne     .last
        inc     r8d
.last:  not     rdx
        mov     [VIEW + 2 * MIB - 8], rdx
        cmp     [VIEW + 2 * MIB - 8], rdx
        jne     .end
        inc     r9d
.end:   ret

attack_memory:
        xor     r8d, r8d
        xor     r9d, r9d
        mov     eax, 16 * MIB
.low:   call    touch
        add     rax, 2 * MIB
        mov     edx, BARS
        cmp     rax, rdx
        jb      .low
        PRINT   'memory below 4 GiB:'
        call    .show
        mov     rax, 4 * GIB
        mov     rdi, 64 * GIB
.high:  call    touch
        add     rax, 2 * MIB
        cmp     rax, rdi
        jb      .high
        PRINT   'memory 4..64 GiB:'
        call    .show
        mov     rdi, 1024 * GIB
.far:   call    touch
        push    rax
        add     rax, GIB - 2 * MIB
        call    touch
        pop     rax
        add     rax, GIB
        cmp     rax, rdi
        jb      .far
        PRINT   'memory 64..1024 GiB:'
.show:  push    rax
        PRINT   ' first='
        mov     eax, r8d
        call    putdec
        PRINT   ' last='
        mov     eax, r9d
        call    putdec
        call    newline
        xor     r8d, r8d
        xor     r9d, r9d
        pop     rax
        ret

; ------------------------------------------------------------------------- SVM

%macro SVM_INSTRUCTIONS 0
%assign op 0xD8
%rep 8
        mov     rax, r14
        xor     ecx, ecx
        db      0x0F, 0x01, op
%assign op op + 1
%endrep
%endmacro

attack_svm:
        mov     ecx, EFER
        rdmsr
        mov     r15d, eax
        mov     ebx, .addresses
.next:  mov     r14, [rbx]
        mov     ecx, EFER               ; SVME off, then on
        mov     eax, r15d
        and     eax, ~0x1000
        xor     edx, edx
        wrmsr
        SVM_INSTRUCTIONS
        mov     ecx, EFER
        mov     eax, r15d
        or      eax, 0x1000
        xor     edx, edx
        wrmsr
        SVM_INSTRUCTIONS
        mov     ecx, HSAVE_PA
        mov     eax, r14d
        mov     rdx, r14
        shr     rdx, 32
        wrmsr
        mov     ecx, VM_CR
        mov     eax, 0x1F
        xor     edx, edx
        wrmsr
        ud2
        add     ebx, 8
        cmp     ebx, .addresses_end
        jb      .next
        mov     ecx, EFER
        rdmsr
        xor     eax, r15d
        PRINT   'svm: efer changed='
        call    .hex
        mov     ecx, HSAVE_PA
        rdmsr
        PRINT   ' hsave='
        push    rax
        mov     eax, edx
        call    .hex
        pop     rax
        call    .hex
        PRINT   ' ud='
        mov     eax, r12d
        call    putdec
        PRINT   ' gp='
        mov     eax, r13d
        call    putdec
        call    newline
        ret
.hex:   mov     cl, 8
        jmp     puthex

        align 8
.addresses:
        dq 0, 0x1000, 0x1001, 0x90000, 0x7FF000, 0x8000000, 0xFFFFF000
        dq 0x100000000, 0x100001000, 0x100002000, 0x100003000, 0x3F00000000
        dq 0xFFFFFFF000, 0x10000000000, 0x7FFFFFFFFFFFF000, 0xFFFFFFFFFFFFF000
.addresses_end:

; ----------------------------------------------------------------------- ports

attack_ports:
        mov     dx, 0xA20               ; where a monitor may have its doorbell
        mov     ecx, 64
.bell:  mov     al, cl
        out     dx, al
        mov     ax, 0x5858
        out     dx, ax
        mov     eax, 0x78787878
        out     dx, eax
        loop    .bell
        mov     esi, doorbell_text
        mov     ecx, 16
        rep     outsb
        PRINT   'ports: done', 10
        ret
doorbell_text db 'xXrRqQ', 0, 1, 2, 3, 4, 0xFF, 0xFE, 10, 13, 27

; ------------------------------------------------------------------------- PCI

; EAX = configuration dword EBX (bus, function, offset)
pci_read:
        mov     eax, ebx
        or      eax, 0x80000000
        mov     dx, 0xCF8
        out     dx, eax
        mov     dx, 0xCFC
        in      eax, dx
        ret

; EAX -> configuration dword EBX
pci_write:
        push    rax
        mov     eax, ebx
        or      eax, 0x80000000
        mov     dx, 0xCF8
        out     dx, eax
        pop     rax
        mov     dx, 0xCFC
        out     dx, eax
        ret

attack_pci:
        PRINT   'pci:'
        xor     ebp, ebp                ; every function, with or without a function 0
.next:  mov     ebx, ebp
        shl     ebx, 8
        call    pci_read
        cmp     eax, 0xFFFFFFFF
        je      .none
        PRINT   ' '
        push    rax
        mov     eax, ebp
        mov     cl, 2
        call    puthex
        PRINT   '='
        pop     rax
        mov     cl, 8
        call    puthex
.none:  inc     ebp
        cmp     ebp, 256
        jb      .next
        call    newline
        mov     ebp, 0xF700             ; where a monitor could have a device:
        call    pci_attack              ; the last functions of the last two slots
        PRINT   'pci 1e.7: '
        mov     cl, 8
        call    puthex
        call    newline
        mov     ebp, 0xFF00
        call    pci_attack
        PRINT   'pci 1f.7: '
        mov     cl, 8
        call    puthex
        call    newline
        ret

pci_attack:
        lea     ebx, [ebp + 0x10]       ; base addresses all ones,
        mov     ecx, 6
.bar:   mov     eax, 0xFFFFFFFF
        call    pci_write
        add     ebx, 4
        loop    .bar
        lea     ebx, [ebp + 4]          ; decoding and bus mastering off
        xor     eax, eax
        call    pci_write
        mov     ebx, ebp
        jmp     pci_read

; ----------------------------------------------------------------------- flood

flood:  xor     r12d, r12d
        mov     ebx, N
.again: ud2
        dec     ebx
        jnz     .again
        PRINT   'flood: ud='
        mov     eax, r12d
        call    putdec
        call    newline
        ret

; skips UD2 (two bytes) or an instruction 0F 01 xx (three)
on_ud:  push    rax
        push    rbx
        inc     r12d
        mov     rbx, [rsp + 16]
        mov     eax, 2
        cmp     byte [rbx + 1], 1
        jne     .skip
        inc     eax
.skip:  add     [rsp + 16], rax
        pop     rbx
        pop     rax
        iretq

; WRMSR with a value that is refused
on_gp:  inc     r13d
        add     rsp, 8
        add     qword [rsp], 2
        iretq

%define CONSOLE_CODE
%include "inc/console.inc"
%include "inc/gates.inc"
