/* The ring 3 program. It runs as two processes, which differ in their number and in how they end. */
#include "kernel.h"

#define CLOBBERED "rax", "rcx", "rdx", "rdi", "r11", "memory", "cc"

/* Say where to go on after the next fault, then run the instructions that should make one. */
#define FAULT(instructions)                                                              \
    asm volatile("leaq 2f(%%rip), %%rdi\n\tmovl %0, %%eax\n\tsyscall\n\t" instructions   \
                 "\n2:"                                                                  \
                 :                                                                       \
                 : "i"(ON_FAULT)                                                         \
                 : CLOBBERED)

static u64 table[1024] = {1, 1};
static u64 zeros[2048];
static double shares[4];

static u64 call(u64 number, u64 first, u64 second) {
    u64 result;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second) : "rcx", "r11", "memory");
    return result;
}

static u64 call_by_interrupt(u64 number, u64 first, u64 second) {
    u64 result;
    asm volatile("int $0x80" : "=a"(result) : "a"(number), "D"(first), "S"(second) : "memory");
    return result;
}

static void say(const char *text, u64 value) {
    char line[64];
    u64 length = 0;
    while (*text)
        line[length++] = *text++;
    for (int shift = 60; shift >= 0; shift -= 4)
        line[length++] = "0123456789abcdef"[value >> shift & 15];
    line[length++] = '\n';
    call(WRITE, (u64)line, length);
}

static u64 deep(u64 depth) {
    volatile u64 room[200];
    room[0] = depth;
    return depth ? deep(depth - 1) + room[0] : 0;
}

static void privileges_and_memory(void) {
    FAULT("hlt");
    FAULT("cli");
    FAULT("movq %%cr0, %%rax");
    FAULT("movabsq $0x8000000000000000, %%rax; movb (%%rax), %%al");
    FAULT("xorl %%edx, %%edx; movl $1, %%eax; xorl %%ecx, %%ecx; divl %%ecx");
    FAULT("ud2");
    FAULT("int3; nop");
    FAULT("xorl %%eax, %%eax; movb (%%rax), %%al");
    FAULT("movb $1, user_main(%%rip)");
    FAULT("movb 0xffffffff80100000, %%al");
    FAULT("movabsq $0xffffc00000000000, %%rax; movb %%al, (%%rax)");
    FAULT("leaq zeros(%%rip), %%rax; jmp *%%rax");
    FAULT("movl $0x43, %%eax; movl %%eax, %%fs");
}

static void arithmetic(u64 number) {
    u32 unmasked = 0x1d80, masked = 0x1f80;
    u16 control = 0x37b;
    double one = number, zero = 0;
    asm volatile("ldmxcsr %0" : : "m"(unmasked));
    asm volatile("leaq 2f(%%rip), %%rdi\n\tmovl %0, %%eax\n\tsyscall\n\tmovsd %1, %%xmm0\n\tdivsd %2, %%xmm0\n2:"
                 :
                 : "i"(ON_FAULT), "m"(one), "m"(zero)
                 : CLOBBERED, "xmm0");
    asm volatile("ldmxcsr %0" : : "m"(masked));
    asm volatile("leaq 2f(%%rip), %%rdi\n\tmovl %0, %%eax\n\tsyscall\n\t"
                 "fldcw %1\n\tfld1\n\tfldz\n\tfdivrp\n\tfwait\n2:\tfninit"
                 :
                 : "i"(ON_FAULT), "m"(control)
                 : CLOBBERED);
}

void user_main(u64 number) {
    u64 sum = 0;
    double share = 0;
    long double product = number;
    for (u64 i = 2; i < 1024; i++)
        table[i] = table[i - 1] + table[i - 2] * number;
    for (u64 i = 1; i <= 40; i++) {
        share += 1.0 / (double)(i * number);
        product *= 1.25L + (long double)i;
        shares[i % 4] = share;
        if (i % 8 == 0) {
            call(YIELD, 0, 0); /* the other one uses the FPU now */
            call_by_interrupt(YIELD, 0, 0);
        }
    }
    for (u64 i = 0; i < 2048; i += 100)
        zeros[i] += table[i % 1024];
    for (u64 i = 0; i < 2048; i++)
        sum = sum * 31 + zeros[i];
    say("user: number ", number);
    say("user: table ", table[1023]);
    say("user: sum ", sum);
    say("user: share ", *(u64 *)&shares[0]);
    say("user: product ", *(u64 *)&product);
    say("user: deep ", deep(30));
    privileges_and_memory();
    arithmetic(number);
    say("user: refused ", call(WRITE, 0x0000123456789000, 1));
    say("user: no such call ", call(99, 0, 0));
    call_by_interrupt(SLEEP, 3, 0);
    if (number == 1)
        call(EXIT, 0, 0);
    asm volatile("movb (%0), %%al" : : "r"(0x6666666660000000) : "rax");
    __builtin_unreachable();
}
