/* What the kernel does to itself: each fault in ring 0, a double fault, the debug registers, the heap. */
#include "kernel.h"

bool overflow(u64 stack);
void stepped(void);
void reached(void);

/* 0 leaves out what not every processor can: to watch data. */
#ifndef WATCHPOINT
#define WATCHPOINT 1
#endif

enum { DR7_G0 = 1 << 1, DR7_G1 = 1 << 3, DR7_EXACT = 3 << 8, DR7_FIXED = 1 << 10, DR7_1_WRITES_8 = 9 << 20 };

#if WATCHPOINT
static volatile u64 watched;
#endif

static void check(const char *what, bool good) {
    if (good)
        return;
    print("wrong: ");
    print(what);
    print("\n");
}

static void faults(void) {
    u64 wild = 0x0000123456789000, not_canonical = 0x8000000000000000;
    check("#DE", FAULTS("divl %1", "r"(0), "a"(1), "d"(0)));
    check("#UD", FAULTS("ud2", ));
    check("#GP in memory", FAULTS("movb (%1), %%al", "r"(not_canonical), "a"(0)));
    check("#GP by selector", FAULTS("ltr %w1", "r"(KERNEL_DS)));
    check("#NP", FAULTS("movl %1, %%fs", "r"(ABSENT)));
    check("#SS", FAULTS("movl %1, %%ss", "r"(ABSENT)));
    check("#PF read", FAULTS("movb (%1), %%al", "r"(wild), "a"(0)));
    check("#PF write", FAULTS("movb %%al, (%1)", "r"(wild), "a"(0)));
    check("#DF", overflow(wild));
    asm volatile("int3");
    asm volatile("int $3");
    check("#BP", seen[BP] == 2);
}

static void debug_line(const char *name) {
    print_line(name, debug_traps);
    print("debug: hash ");
    print_hex(debug_hash);
    print("\n");
    debug_traps = 0;
}

static void debug_registers(void) {
    WRITE_REGISTER("dr6", 0xffff0ff0);
    stepped();
    debug_line("debug: steps");
    WRITE_REGISTER("dr0", reached);
    WRITE_REGISTER("dr7", DR7_FIXED | DR7_EXACT | DR7_G0);
    reached();
    reached();
    WRITE_REGISTER("dr7", DR7_FIXED);
    reached();
    debug_line("debug: breakpoint");
#if WATCHPOINT
    WRITE_REGISTER("dr1", &watched);
    WRITE_REGISTER("dr7", DR7_FIXED | DR7_EXACT | DR7_G1 | DR7_1_WRITES_8);
    watched = 1;
    watched += 1;
    WRITE_REGISTER("dr7", DR7_FIXED);
    watched = 5;
    debug_line("debug: watchpoint");
#endif
}

/* String instructions run into one unmapped page after the other and go on in the middle. */
static void heap(void) {
    u64 sum = 0;
    for (int round = 0; round < 2; round++) {
        u64 *to = (u64 *)HEAP;
        u64 count = 20 * PAGE / 8;
        asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(0x0101010101010101) : "memory");
        u8 *target = (u8 *)HEAP + 100 * PAGE + 5, *source = (u8 *)HEAP + 3;
        count = 5 * PAGE;
        asm volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(count) : : "memory");
        for (u64 page = 0; page < 512; page += 5)
            sum += *(volatile u8 *)(HEAP + page * PAGE + 9);
        heap_release();
    }
    print_line("heap: sum", sum);
    print_line("heap: pages mapped", pages_mapped);
}

#ifdef CRASH
static volatile u64 *volatile nowhere;

/* Loses the IDT, and then follows a null pointer. */
static __attribute__((noinline)) void crash(void) {
    struct __attribute__((packed)) { u16 limit; u64 base; } none = {0, 0};
    asm volatile("lidt %0" :: "m"(none));
    nowhere[2] = 1;
}
#endif

void selftest(void) {
#ifdef CRASH
    crash();
#endif
    faults();
    debug_registers();
    heap();
}
