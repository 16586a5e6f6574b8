/* An EFI program that raises #UD, #GP and #PF under an IDT of its own and says which, then #UD without an IDT, by an
   instruction that is in no function. */

struct __attribute__((packed)) gate {
    unsigned short low, selector;
    unsigned char ist, attributes;
    unsigned short middle;
    unsigned int high, reserved;
};
struct __attribute__((packed)) pointer {
    unsigned short limit;
    unsigned long long base;
};

static struct gate idt[32];
static unsigned char ud2[] = {0x0f, 0x0b};

static void out(unsigned short port, unsigned char value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

void say(const char *text)
{
    while (*text)
        out(0x3f8, *text++);
}

/* Each faulting instruction has two bytes: its handler skips it. */
__asm__(".macro handler name, code\n"
        "\\name: .if \\code\n add $8, %rsp\n .endif\n addq $2, (%rsp)\n iretq\n"
        ".endm\n"
        "handler on_ud, 0\n handler on_gp, 1\n handler on_pf, 1\n");
__attribute__((visibility("hidden"))) extern void on_ud(void), on_gp(void), on_pf(void);

static void set(int vector, void (*handler)(void))
{
    unsigned long long address = (unsigned long long)handler;
    unsigned short code;
    __asm__("mov %%cs, %0" : "=r"(code));
    idt[vector] = (struct gate){address, code, 0, 0x8e, address >> 16, address >> 32, 0};
}

__attribute__((noinline)) void raise_ud(void)
{
    __asm__ volatile("ud2");
}

__attribute__((noinline)) void raise_gp(void)
{
    __asm__ volatile("mov (%%rax), %%ecx" : : "a"(1ull << 63) : "ecx");
}

__attribute__((noinline)) void raise_pf(void)
{
    __asm__ volatile("mov (%%rax), %%ecx" : : "a"(0x7f0000000000ull) : "ecx");
}

void efi_main(void)
{
    struct pointer table = {sizeof idt - 1, (unsigned long long)idt};
    say("efi: up\r\n");
    __asm__ volatile("cli");
    set(6, on_ud);
    set(13, on_gp);
    set(14, on_pf);
    __asm__ volatile("lidt %0" : : "m"(table));
    raise_ud();
    say("efi: after #UD\r\n");
    raise_gp();
    say("efi: after #GP\r\n");
    raise_pf();
    say("efi: after #PF\r\n");
    table.limit = 0;
    __asm__ volatile("lidt %0" : : "m"(table));
    ((void (*)(void))ud2)();
}
