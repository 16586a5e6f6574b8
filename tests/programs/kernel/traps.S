/* The way into the kernel and out of it. Every entry leaves a struct frame (kernel.h) on the stack. */
#define CPU_STACK 0         /* struct cpu in tasks.c */
#define CPU_USER_RSP 8
#define FRAME_CS 144
#define USER_DS 0x23
#define USER_CS 0x2b

    .macro save
    .irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    push %\register
    .endr
    .endm

    .macro restore
    .irp register, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax
    pop %\register
    .endr
    add $16, %rsp           /* vector and error code */
    .endm

    .text
    .macro stub number
stub_\number:
    .if (\number < 8) || (\number == 9) || (\number == 15) || (\number == 16) || (\number > 17)
    push $0
    .endif
    push $\number
    jmp entered
    .pushsection .rodata
    .quad stub_\number
    .popsection
    .endm

    .pushsection .rodata
    .balign 8
    .global stubs
stubs:
    .popsection
    .altmacro
    number = 0
    .rept 48
    stub %number
    number = number + 1
    .endr

    .global stub_int80
stub_int80:
    push $0
    push $0x80
entered:
    save
    testb $3, FRAME_CS(%rsp)
    jz 1f
    swapgs
1:  cld
    mov %rsp, %rdi
    call trap
    .global leave
leave:
    testb $3, FRAME_CS(%rsp)
    jz 1f
    swapgs
1:  restore
    iretq

    .global syscall_entry
syscall_entry:
    swapgs
    mov %rsp, %gs:CPU_USER_RSP
    mov %gs:CPU_STACK, %rsp
    push $USER_DS
    push %gs:CPU_USER_RSP
    push %r11
    push $USER_CS
    push %rcx
    push $0
    push $0x100
    save
    cld
    mov %rsp, %rdi
    call trap
    restore
    mov (%rsp), %rcx        /* RIP */
    mov 16(%rsp), %r11      /* RFLAGS */
    mov 24(%rsp), %rsp
    swapgs
    sysretq

/* void switch_stacks(u64 *save_rsp, u64 load_rsp) */
    .global switch_stacks
switch_stacks:
    .irp register, rbx, rbp, r12, r13, r14, r15
    push %\register
    .endr
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    .irp register, r15, r14, r13, r12, rbp, rbx
    pop %\register
    .endr
    ret

/* bool overflow(u64 stack): push to a stack that is not there, so that #PF has none either; #DF has its own. */
    .global overflow
overflow:
    mov %rsp, %rdx
    mov %rdi, %rsp
1:  push %rax
    mov %rdx, %rsp
    xor %eax, %eax
    ret
2:  mov %rdx, %rsp
    mov $1, %eax
    ret
    .pushsection .fixups, "a"
    .quad 1b, 2b
    .popsection

/* void stepped(void): six instructions under the trap flag, and the one behind that clears it. */
    .global stepped
stepped:
    pushfq
    orl $0x100, (%rsp)
    popfq
    nop
    mov $3, %eax
1:  dec %eax
    jnz 1b
    pushfq
    andl $~0x100, (%rsp)
    popfq
    ret

/* void reached(void): where the hardware breakpoint lies. */
    .global reached
reached:
    nop
    ret
