/* Descriptor tables, what happens on each vector, the timer, and the hash over all frames. */
#include "kernel.h"

#ifndef RF
#define RF 1 /* 0: frames are without RF, which QEMU 7.2 sets for no fault */
#endif

enum { PIC1 = 0x20, PIC2 = 0xa0, PIT = 0x40, PIT_COMMAND = 0x43, PIT_HZ = 1193182, TICKS_PER_SECOND = 100 };
enum { GATE = 0x8e, GATE_USER = 0xee, IST_DF = 1, IST_DB = 2, DR6_SHOWN = 0xe00f };

struct gate {
    u16 offset_low, selector;
    u8 ist, kind;
    u16 offset_middle;
    u32 offset_high, reserved;
};
struct tss {
    u32 reserved0;
    u64 rsp[3], reserved1, ist[7], reserved2;
    u16 reserved3, io_map;
} __attribute__((packed));
struct pointer {
    u16 limit;
    u64 base;
} __attribute__((packed));
struct fixup {
    u64 from, to;
};

#ifdef SMP
enum { GDT_SIZE = 12 };
#else
enum { GDT_SIZE = 10 };
#endif

static u64 gdt[GDT_SIZE] = {0,
                      0x00af9b000000ffff,  /* KERNEL_CS */
                      0x00cf93000000ffff,  /* KERNEL_DS */
                      0,                   /* SYSRET's 32-bit code */
                      0x00cff3000000ffff,  /* USER_DS */
                      0x00affb000000ffff}; /* USER_CS */
static struct gate idt[256];
static struct tss tss = {.io_map = sizeof(struct tss)};
static u8 double_fault_stack[4096] __attribute__((aligned(16)));
static u8 debug_stack[4096] __attribute__((aligned(16)));

extern u64 stubs[48];
extern struct fixup fixups[], fixups_end[];
void stub_int80(void);
void trap(struct frame *frame);
void call_from_user(struct frame *frame);

u64 frames_hash = 0xcbf29ce484222325, debug_hash = 0xcbf29ce484222325, debug_traps, seen[32];
volatile u64 ticks;

static const char *const NAMES[32] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS",
                                      "#NP", "#SS", "#GP", "#PF", "#15", "#MF", "#AC", "#MC", "#XM"};

static void set_gate(int vector, u64 target, u8 ist, u8 kind) {
    idt[vector] = (struct gate){target, KERNEL_CS, ist, kind, target >> 16, target >> 32, 0};
}

void traps_start(void) {
    u64 base = (u64)&tss;
    gdt[TSS / 8] = (sizeof tss - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[TSS / 8 + 1] = base >> 32;
    gdt[ABSENT / 8] = 0x00cf13000000ffff;
    struct pointer gdtr = {sizeof gdt - 1, (u64)gdt}, idtr = {sizeof idt - 1, (u64)idt};
    for (int vector = 0; vector < 48; vector++)
        set_gate(vector, stubs[vector], vector == DF ? IST_DF : vector == DB ? IST_DB : 0,
                 vector == BP ? GATE_USER : GATE);
    set_gate(INT80, (u64)stub_int80, 0, GATE_USER);
    tss.ist[IST_DF - 1] = (u64)(double_fault_stack + sizeof double_fault_stack);
    tss.ist[IST_DB - 1] = (u64)(debug_stack + sizeof debug_stack);
    asm volatile("lgdt %0" : : "m"(gdtr));
    asm volatile("lidt %0" : : "m"(idtr));
    asm volatile("ltr %w0" : : "r"(TSS));
}

#ifdef SMP
void second_traps_start(void) {
    static struct tss tss2 = {.io_map = sizeof(struct tss)};
    static u8 stack[4096] __attribute__((aligned(16)));
    u64 base = (u64)&tss2;
    gdt[SECOND_TSS / 8] = (sizeof tss2 - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[SECOND_TSS / 8 + 1] = base >> 32;
    struct pointer gdtr = {sizeof gdt - 1, (u64)gdt}, idtr = {sizeof idt - 1, (u64)idt};
    tss2.ist[IST_DF - 1] = tss2.ist[IST_DB - 1] = (u64)(stack + sizeof stack);
    asm volatile("lgdt %0" : : "m"(gdtr));
    asm volatile("lidt %0" : : "m"(idtr));
    asm volatile("ltr %w0" : : "r"(SECOND_TSS));
}
#endif

void set_kernel_stack(u64 top) { tss.rsp[0] = top; }

/* FNV-1a over 64-bit words: the whole frame, where it lies, CR2 and DR6. */
static void add(u64 *hash, u64 value) { *hash = (*hash ^ value) * 0x100000001b3; }

static void hash_frame(struct frame *frame) {
    u64 *hash = frame->vector == DB ? &debug_hash : &frames_hash;
    for (u64 *word = (u64 *)frame; word < (u64 *)(frame + 1); word++)
        add(hash, *word);
    add(hash, (u64)frame);
    add(hash, frame->vector == PF ? READ_REGISTER("cr2") : 0);
}

static void report(struct frame *frame) {
    print(frame->cs & 3 ? "user " : "kernel ");
    print(NAMES[frame->vector] ? NAMES[frame->vector] : "#reserved");
    print(" error ");
    print_hex(frame->error);
    print(" at ");
    print_hex(frame->cs);
    print(":");
    print_hex(frame->rip);
    print(" stack ");
    print_hex(frame->ss);
    print(":");
    print_hex(frame->rsp);
    print(" flags ");
    print_hex(frame->rflags);
    if (frame->vector == PF) {
        print(" address ");
        print_hex(READ_REGISTER("cr2"));
    }
    print("\n");
}

static void debug(struct frame *frame) {
    u64 dr6 = READ_REGISTER("dr6");
    add(&debug_hash, dr6 & DR6_SHOWN);
    WRITE_REGISTER("dr6", 0xffff0ff0);
    frame->rflags |= RESUME_FLAG; /* past a breakpoint on an instruction */
    debug_traps++;
}

static void interrupt(u64 vector) {
    if (vector == IRQ0)
        ticks++;
    if (vector >= IRQ0 + 8)
        outb(PIC2, 0x20);
    outb(PIC1, 0x20);
}

static bool fixed_up(struct frame *frame) {
    for (struct fixup *each = fixups; each < fixups_end; each++) {
        if (each->from == frame->rip) {
            frame->rip = each->to;
            return true;
        }
    }
    return false;
}

static void exception(struct frame *frame) {
    bool user = frame->cs & 3;
    seen[frame->vector]++;
    if (frame->vector == PF && map_on_demand(READ_REGISTER("cr2"), frame->error, user))
        return;
    if (frame->vector == NM && READ_REGISTER("cr0") & 8) {
        fpu_wanted();
        return;
    }
    if (frame->vector == DB) {
        debug(frame);
        return;
    }
    report(frame);
    if (user ? task_catches(frame) : frame->vector == BP || fixed_up(frame))
        return;
    if (!user) {
        print("nobody expected that\n");
        power_off(1);
    }
    task_dies();
}

#ifdef SMP
static bool on_second(void) {
    u64 selector;
    asm volatile("str %0" : "=r"(selector));
    return selector == SECOND_TSS;
}

static void second_trap(struct frame *frame) {
    second_seen[frame->vector & 31]++;
    if (frame->vector >= 32 || !fixed_up(frame))
        power_off(3);
}
#endif

void trap(struct frame *frame) {
#ifdef SMP
    if (on_second()) {
        second_trap(frame);
        return;
    }
#endif
    if (frame->vector >= IRQ0 && frame->vector < IRQ0 + 16) {
        interrupt(frame->vector); /* when a tick comes nobody can say, so no frame of one counts */
        return;
    }
    if (!RF)
        frame->rflags &= ~(u64)RESUME_FLAG;
    hash_frame(frame);
    if (frame->vector < 32)
        exception(frame);
    else
        call_from_user(frame);
}

void timer_start(void) {
    static const u8 words[2][4] = {{0x11, IRQ0, 4, 1}, {0x11, IRQ0 + 8, 2, 1}};
    for (int pic = 0; pic < 2; pic++) {
        u16 port = pic ? PIC2 : PIC1;
        outb(port, words[pic][0]);
        for (int word = 1; word < 4; word++)
            outb(port + 1, words[pic][word]);
        outb(port + 1, pic ? 0xff : 0xfe);
    }
    outb(PIT_COMMAND, 0x34); /* channel 0, both bytes, rate generator */
    outb(PIT, PIT_HZ / TICKS_PER_SECOND & 0xff);
    outb(PIT, PIT_HZ / TICKS_PER_SECOND >> 8);
}

/* Interrupts are off before and after. */
void wait_idle(u64 count) {
    for (u64 end = ticks + count; ticks < end;)
        asm volatile("sti; hlt; cli" : : : "memory");
}

void wait_busy(u64 count) {
    u64 end = ticks + count;
    asm volatile("sti" : : : "memory");
    while (ticks < end) {
    }
    asm volatile("cli" : : : "memory");
}
