/* An EFI program that starts CPU 1, as a loader or a kernel does: it raises #UD three times in real mode and says so in
   memory. With BROKEN it enters protected mode before it has a GDT. */

#define PAGE 0x8000
#define COUNTED ((volatile unsigned int *)(PAGE + 0x800))
#define APIC(offset) (*(volatile unsigned int *)(0xfee00000ull + (offset)))

#ifndef BROKEN
#define BROKEN 0
#endif

#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)

/* It is copied to its page. */
__asm__(".pushsection .data\n .code16\n"
        ".set at, " TEXT(PAGE) "\n"
        "first: cli\n xor %ax, %ax\n mov %ax, %ds\n mov %ax, %ss\n mov $(at + 0x700), %sp\n"
        ".if " TEXT(BROKEN) "\n"
        " mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n ljmpl $0x08, $(at + 0x400)\n"
        ".endif\n"
        " lidt (idtr - first + at)\n"
        " ud2\n ud2\n ud2\n"
        " mov (count - first + at), %eax\n mov %eax, (at + 0x800)\n"
        "rest: hlt\n jmp rest\n"
        "on_ud: incl (count - first + at)\n push %bp\n mov %sp, %bp\n addw $2, 2(%bp)\n pop %bp\n iret\n"
        "count: .long 0\n"
        "idtr: .word 4 * 7 - 1\n .long (ivt - first + at)\n"
        "ivt: .skip 4 * 6\n .word (on_ud - first + at), 0\n"
        "last: .code64\n .popsection\n");
__attribute__((visibility("hidden"))) extern const unsigned char first[], last[];

static void out(unsigned short port, unsigned char value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void say(const char *text)
{
    while (*text)
        out(0x3f8, *text++);
}

/* An INIT takes its time, and a startup IPI before it is lost. */
static void wait(void)
{
    for (int turn = 0; turn < 1000000 && !*COUNTED; turn++)
        __asm__ volatile("pause");
}

void efi_main(void)
{
    __asm__ volatile("cli");
    for (unsigned long long at = 0; first + at < last; at++)
        ((volatile unsigned char *)PAGE)[at] = first[at];
    *COUNTED = 0;
    say("efi: up\r\n");
    APIC(0x310) = 1 << 24;
    APIC(0x300) = 0x4500; /* INIT */
    while (!*COUNTED) {
        wait();
        APIC(0x310) = 1 << 24;
        APIC(0x300) = 0x4600 | PAGE >> 12; /* startup IPI */
        wait();
    }
    say(*COUNTED == 3 ? "efi: CPU 1 has handled 3\r\n" : "efi: CPU 1 is wrong\r\n");
    out(0xf4, 0);
    for (;;)
        __asm__ volatile("hlt");
}
