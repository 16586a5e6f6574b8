/* Multiboot 1 (specification 0.6.96, 3.1) hands over in protected mode without paging; from there to long mode. */
#define BASE 0xffffffff80000000
#define CR0_PG_WP_NE_MP_PE 0x80010023
#define CR4_OSXMMEXCPT_OSFXSR_PGE_PAE 0x6a0
#define EFER 0xc0000080
#define EFER_NXE_LME_SCE 0x901

    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 0, -0x1badb002

    .section .boot, "awx"
    .code32
    .global start
start:
    cli
    cld
    lgdt gdt_pointer
    mov $page_tables, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $CR4_OSXMMEXCPT_OSFXSR_PGE_PAE, %eax
    mov %eax, %cr4
    mov $EFER, %ecx
    rdmsr
    or $EFER_NXE_LME_SCE, %eax
    wrmsr
    mov $CR0_PG_WP_NE_MP_PE, %eax
    mov %eax, %cr0
    ljmp $0x08, $long_mode

    .code64
long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack_top, %rsp
    xor %ebx, %ebx          /* what a boot loader left does not show in any frame */
    xor %ecx, %ecx
    xor %edx, %edx
    xor %esi, %esi
    xor %edi, %edi
    xor %ebp, %ebp
    xor %r8d, %r8d
    xor %r9d, %r9d
    xor %r10d, %r10d
    xor %r11d, %r11d
    xor %r12d, %r12d
    xor %r13d, %r13d
    xor %r14d, %r14d
    xor %r15d, %r15d
    mov $kernel_main, %rax
    call *%rax
stop:
    cli
    hlt
    jmp stop

    .balign 8
    .global boot_gdt
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt

/* The first GiB of memory at 0 and at BASE, in pages of 2 MiB. The lower map goes when the kernel has its own. */
    .balign 4096
    .global page_tables
page_tables:
    .quad low_directories + 7
    .skip 8 * 510
    .quad high_directories + 3
low_directories:
    .quad pages + 7
    .skip 8 * 511
high_directories:
    .skip 8 * 510
    .quad pages + 3
    .skip 8
pages:
    number = 0
    .rept 512
    .quad (number << 21) + 0x183
    number = number + 1
    .endr

    .section .bss
    .balign 16
    .skip 16384
    .global boot_stack_top
boot_stack_top:
