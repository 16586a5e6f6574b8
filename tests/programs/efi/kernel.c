/* A 64-bit kernel in the higher half, for `loader.c`: under tables of its own it raises #UD, #GP and #PF, counts them,
   and then writes where nothing is mapped, without an IDT. */

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

struct __attribute__((packed)) gate {
    u16 low, selector;
    u8 ist, attributes;
    u16 middle;
    u32 high, reserved;
};
struct __attribute__((packed)) pointer {
    u16 limit;
    u64 base;
};

static u64 gdt[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};
static struct gate idt[32];
u64 counts[32];

__asm__(".pushsection .bss\n .balign 16\n .skip 8192\n stack: .popsection\n"
        ".globl start\n start: cld\n mov $stack, %rsp\n xor %ebp, %ebp\n call kernel_main\n"
        /* Each faulting instruction has two bytes. */
        ".macro handler name, vector, code\n"
        "\\name: .if \\code\n add $8, %rsp\n .endif\n incq counts + 8 * \\vector\n addq $2, (%rsp)\n iretq\n"
        ".endm\n"
        "handler on_ud, 6, 0\n handler on_gp, 13, 1\n handler on_pf, 14, 1\n");
extern void on_ud(void), on_gp(void), on_pf(void);

static void out(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static void say(const char *text) {
    while (*text)
        out(0x3f8, *text++);
}

static void set(int vector, void (*handler)(void)) {
    u64 address = (u64)handler;
    idt[vector] = (struct gate){address, 8, 0, 0x8e, address >> 16, address >> 32, 0};
}

static void load_tables(void) {
    struct pointer of_gdt = {sizeof gdt - 1, (u64)gdt}, of_idt = {sizeof idt - 1, (u64)idt};
    set(6, on_ud);
    set(13, on_gp);
    set(14, on_pf);
    __asm__ volatile("lgdt %0\n lidt %1\n"
                     "mov $16, %%eax\n mov %%eax, %%ds\n mov %%eax, %%es\n mov %%eax, %%ss\n"
                     "push $8\n push $1f\n lretq\n 1:" : : "m"(of_gdt), "m"(of_idt) : "rax", "memory");
}

__attribute__((noinline)) static void write_wild(void) {
    struct pointer none = {0, 0};
    __asm__ volatile("lidt %0\n mov %%eax, (%%rdx)" : : "m"(none), "a"(1), "d"(1ull << 40));
}

void kernel_main(void) {
    say("kernel: up\r\n");
    load_tables();
    for (int i = 0; i < 3; i++) {
        __asm__ volatile("ud2");
        __asm__ volatile("mov (%%rax), %%ecx" : : "a"(1ull << 63) : "ecx");
        __asm__ volatile("mov (%%rax), %%ecx" : : "a"(1ull << 40) : "ecx");
    }
    say("kernel: #UD #GP #PF ");
    for (int i = 0; i < 3; i++)
        out(0x3f8, '0' + counts[(int[]){6, 13, 14}[i]]);
    say("\r\n");
    write_wild();
}
