; System management mode: what the BIOS's handler leaves, then a handler of the guest's own in
; SMRAM, which raises exceptions in real and in paged protected mode. SMIs come from the APM
; control port and from the local APIC. Needs the i440FX, whose SMRAM register it opens. With
; ENDS_IN_INIT it sends itself an INIT at the end.

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

SMBASE          equ 0xA0000             ; as SeaBIOS relocates it
ENTRY           equ 0x8000
SMRAM_REGISTER  equ 0x80000070          ; configuration address of the i440FX's 72h
SMRAM_OPEN      equ 0x4A                ; D_OPEN, G_SMRAME
SMRAM_CLOSED    equ 0x0A
APM_CONTROL     equ 0xB2
APM_STATUS      equ 0xB3
ACPI_ENABLE     equ 0xF1                ; SMI_CMD values of QEMU's pc
ACPI_DISABLE    equ 0xF0
PM_CONTROL      equ 0x604
SMI_COUNT       equ 0x34
APIC_ICR        equ APIC + 0x300
SMI_TO_SELF     equ 1 << 18 | 2 << 8
INIT_TO_SELF    equ 1 << 18 | 1 << 14 | 5 << 8
SAVED_EFER      equ 0xFED0              ; offsets from SMBASE (APM 10.2.3)
SAVED_CR0       equ 0xFF58
SAVED_RFLAGS    equ 0xFF70
SAVED_RIP       equ 0xFF78
SAVED_RAX       equ 0xFFF8

IVT             equ 0x2000              ; of the handler
NEXT            equ 0x2F00              ; where it goes on after an exception
CLEAR_SVME      equ 0x2F04              ; not 0: clear that bit of the saved EFER
LOG_END         equ 0x2F08
LOG             equ 0x3000              ; entries of 4 dwords
SMM_STACK       equ 0x7000
SMM_STACK_32    equ 0x6C00
DIRECTORY       equ 0x120000            ; page directory and IDT of protected mode
IDT32           equ 0x121000
UNMAPPED        equ 0xC00000

        WIDTH 64
main64: call    load_idt
        mov     eax, 6
        mov     ebx, on_ud
        call    set_gate
        xor     r12d, r12d              ; #UD seen
        call    show_ports
        mov     al, ACPI_ENABLE
        out     APM_CONTROL, al
        call    show_ports
        mov     al, ACPI_DISABLE
        out     APM_CONTROL, al
        call    show_ports
        call    prepare
        call    install
        ud2
        mov     dword [CLEAR_SVME], 0
.again: call    by_port
        call    show_log
        inc     dword [CLEAR_SVME]
        cmp     dword [CLEAR_SVME], 2
        jb      .again
        mov     dword [CLEAR_SVME], 0
        mov     dword [APIC_ICR + 0x10], 0
        mov     dword [APIC_ICR], SMI_TO_SELF
        jmp     .taken
.taken: call    show_log
        mov     eax, 100
.ud:    ud2
        dec     eax
        jnz     .ud
        PRINT   'ud='
        mov     eax, r12d
        call    putdec
        call    newline
        call    show_ports
        PRINT   'ALIVE', 10
        jmp     near end

on_ud:  inc     r12d
        add     qword [rsp], 2
        iretq

show_ports:
        PRINT   'count '
        mov     ecx, SMI_COUNT
        rdmsr
        mov     cl, 8
        call    puthex
        PRINT   ' pm1 '
        mov     dx, PM_CONTROL
        in      ax, dx
        mov     cl, 4
        call    puthex
        PRINT   ' apm '
        in      al, APM_CONTROL
        mov     ah, al
        in      al, APM_STATUS
        call    puthex
        PRINT   ' efer '
        mov     ecx, 0xC0000080
        rdmsr
        mov     cl, 8
        call    puthex
        jmp     newline

; the tables that the handler uses
prepare:
        mov     edi, IVT
        mov     ecx, 0x41
.vector:
        mov     dword [rdi], SMBASE / 16 << 16 | ENTRY + (on_other - smi)
        add     edi, 4
        dec     ecx
        jnz     .vector
%macro VECTOR 1                         ; of the handler: vector, from label on_%1
        mov     dword [IVT + 4 * %1], SMBASE / 16 << 16 | ENTRY + (on_%1 - smi)
%endmacro
        VECTOR  0
        VECTOR  3
        VECTOR  4
        VECTOR  5
        VECTOR  6
        VECTOR  13
        VECTOR  0x40
        mov     edi, DIRECTORY
        mov     ecx, 0x2000 / 4
        xor     eax, eax
        rep     stosd
        mov     dword [DIRECTORY], PTE_P | PTE_W | PTE_PS
%macro GATE 2                           ; of protected mode: vector, label
        mov     dword [IDT32 + 8 * %1], CODE32 << 16 | (SMBASE + ENTRY + (%2 - smi)) & 0xFFFF
        mov     dword [IDT32 + 8 * %1 + 4], (SMBASE + ENTRY + (%2 - smi)) & 0xFFFF0000 | 0x8E00
%endmacro
        GATE    3, pm_3
        GATE    6, pm_6
        GATE    14, pm_14
        ret

; copy the handler to SMRAM
install:
        mov     al, SMRAM_OPEN
        call    set_smram
        mov     esi, smi
        mov     edi, SMBASE + ENTRY
        mov     ecx, smi_end - smi
        rep     movsb
        mov     al, SMRAM_CLOSED
set_smram:
        push    rax
        mov     dx, 0xCF8
        mov     eax, SMRAM_REGISTER
        out     dx, eax
        pop     rax
        mov     dx, 0xCFE
        out     dx, al
        ret

; an SMI by the APM port; all registers but RAX, which the handler changes, and RDX are kept
by_port:
        mov     rbx, 0x1111222233334444
        mov     rcx, 0x5555666677778888
        mov     r15, 0xFEDCBA9876543210
        mov     eax, 0x77
        out     APM_CONTROL, al
        jmp     .taken                  ; TCG takes it at the end of a block of code
.taken: push    rcx
        PRINT   'rax '
        mov     cl, 8
        call    puthex
        PRINT   ' rbx '
        mov     rax, rbx
        shr     rax, 32
        call    puthex
        mov     eax, ebx
        call    puthex
        PRINT   ' rcx '
        pop     rax
        mov     cl, 8
        call    puthex
        PRINT   ' r15 '
        mov     rax, r15
        shr     rax, 32
        call    puthex
        mov     rax, cr0
        PRINT   ' cr0 '
        call    puthex
        jmp     newline

show_log:
        mov     esi, LOG
        mov     cl, 8
.line:  mov     edx, 4
.dword: mov     eax, [rsi]
        call    puthex
        mov     al, ' '
        call    putc
        add     esi, 4
        dec     edx
        jnz     .dword
        call    newline
        cmp     esi, [LOG_END]
        jb      .line
        ret

; ------------------------------------------------------------ in SMRAM from here

%define OFF(label) (ENTRY + (label - smi))

%macro TRY 1+                           ; an instruction that raises an exception
        mov     word [NEXT], OFF(%%after)
        %1
        call    nothing
%%after:
%endmacro

%macro NOTE 1                           ; EAX is what a test read
        mov     ebx, %1
        call    value
%endmacro

        bits 16
smi:    cld
        mov     sp, SMM_STACK
        mov     dword [LOG_END], LOG
        o32 lidt [cs:OFF(ivt_pointer)]
        mov     eax, [cs:SAVED_RIP]
        NOTE    0x101
        mov     eax, [cs:SAVED_RFLAGS]
        NOTE    0x102
        mov     eax, [cs:SAVED_CR0]
        NOTE    0x103
        mov     dword [cs:SAVED_RAX], 0xCAFE
        mov     ecx, 0xC0000080
        rdmsr
        NOTE    0x104
        mov     eax, cr0
        NOTE    0x105
        xor     eax, eax
        cpuid
        NOTE    0x106
        in      al, APM_CONTROL
        movzx   eax, al
        NOTE    0x107
        TRY     ud2
        xor     ax, ax
        TRY     div al
        TRY     int3
        TRY     int 0x40
        mov     al, 0x7F
        add     al, 1
        TRY     into
        TRY     int 0x50                ; beyond the IVT: #GP
        mov     ax, 5
        TRY     bound ax, [cs:OFF(bounds)]
        TRY     vmmcall
        TRY     vmrun
        mov     ecx, 0x40000000         ; in none of SVM's ranges
        rdmsr
        NOTE    0x108
        cmp     byte [CLEAR_SVME], 0
        je      .kept
        and     byte [cs:SAVED_EFER + 1], 0xEF
.kept:  mov     eax, DIRECTORY
        mov     cr3, eax
        mov     eax, cr4
        or      al, 0x10                ; PSE
        mov     cr4, eax
        o32 lgdt [cs:OFF(gdt32_pointer)]
        o32 lidt [cs:OFF(idt32_pointer)]
        mov     eax, cr0
        or      eax, 0x80000001
        mov     cr0, eax
        jmp     dword CODE32:SMBASE + ENTRY + (.paged - smi)
        bits 32
.paged: mov     ax, DATA
        mov     ds, ax
        mov     ss, ax
        mov     esp, SMM_STACK_32
%macro TRY32 1+
        mov     dword [NEXT], SMBASE + OFF(%%after)
        %1
%%after:
%endmacro
        TRY32   ud2
        TRY32   mov eax, [UNMAPPED + 0x123]
        TRY32   mov [UNMAPPED + 0x456], eax
        TRY32   int3
        TRY32   vmload
        rsm

pm_3:   push    0
        push    3
        jmp     pm_common
pm_6:   push    0
        push    6
        jmp     pm_common
pm_14:  push    14
pm_common:                              ; vector, error code, EIP, CS, EFLAGS
        push    eax
        push    edi
        mov     edi, [LOG_END]
        mov     eax, [esp + 8]
        shl     eax, 16
        or      eax, [esp + 12]
        mov     [edi], eax
        mov     eax, [esp + 16]
        mov     [edi + 4], eax
        mov     eax, [esp + 24]
        mov     [edi + 8], eax
        mov     eax, cr2
        mov     [edi + 12], eax
        add     dword [LOG_END], 16
        mov     eax, [NEXT]
        mov     [esp + 16], eax
        pop     edi
        pop     eax
        add     esp, 8
        iretd

        bits 16
%macro STUB 1
on_%1:  push    word %1
        jmp     rm_common
%endmacro
        STUB    0
        STUB    3
        STUB    4
        STUB    5
        STUB    6
        STUB    13
        STUB    0x40
on_other:
        push    word 0xFF
rm_common: push    eax                     ; on the stack: EAX, vector, IP, CS, FLAGS
        push    di
        push    bp
        mov     bp, sp
        mov     di, [LOG_END]
        movzx   eax, word [bp + 8]
        mov     [di], eax
        movzx   eax, word [bp + 10]
        mov     [di + 4], eax
        mov     eax, [bp + 12]
        mov     [di + 8], eax
        movzx   eax, sp
        mov     [di + 12], eax
        add     word [LOG_END], 16
        mov     ax, [NEXT]
        mov     [bp + 10], ax
        pop     bp
        pop     di
        pop     eax
        add     sp, 2
        iret

; EAX, and EBX to tell which
value:  push    di
        mov     di, [LOG_END]
        mov     [di], ebx
        mov     [di + 4], eax
        mov     dword [di + 8], 0
        mov     dword [di + 12], 0
        add     word [LOG_END], 16
        pop     di
        ret

nothing:
        mov     ebx, 0x1FF
        jmp     value

        align 8
ivt_pointer:
        dw 4 * 0x41 - 1
        dd IVT
gdt32_pointer:
        dw gdt_end - gdt - 1
        dd gdt
idt32_pointer:
        dw 8 * 32 - 1
        dd IDT32
bounds: dw 10, 20
smi_end:

        WIDTH 64
end:
%ifdef ENDS_IN_INIT                     ; SMBASE is kept, so the guest's handler stays
        mov     dword [APIC_ICR], INIT_TO_SELF
%endif
        jmp     finish

%include "inc/gates.inc"
%define CONSOLE_CODE
%include "inc/console.inc"
