/* The second CPU: from real mode, at the page that the startup IPI names, to long mode with the first page tables. */
#define TRAMPOLINE 0x8000
#define CR0_PG_WP_NE_MP_PE 0x80010023
#define CR4_OSXMMEXCPT_OSFXSR_PGE_PAE 0x6a0
#define EFER 0xc0000080
#define EFER_NXE_LME_SCE 0x901

    .section .boot, "awx"
    .code16
    .global trampoline
trampoline:
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl TRAMPOLINE + pointer - trampoline
    mov $page_tables, %eax
    mov %eax, %cr3
    mov $CR4_OSXMMEXCPT_OSFXSR_PGE_PAE, %eax
    mov %eax, %cr4
    mov $EFER, %ecx
    mov $EFER_NXE_LME_SCE, %eax
    xor %edx, %edx
    wrmsr
    mov $CR0_PG_WP_NE_MP_PE, %eax
    mov %eax, %cr0
    ljmpl $0x08, $second_long_mode
pointer:
    .word 23
    .long boot_gdt
    .global trampoline_end
trampoline_end:

    .code64
second_long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $second_stack_top, %rsp
    xor %ebp, %ebp
    mov $second_main, %rax
    call *%rax

    .section .bss
    .balign 16
    .skip 16384
second_stack_top:
