/* A second CPU, which raises exceptions and counts them while the first one does what it does alone. */
#include "kernel.h"

enum { ID_COMMAND_HIGH = 0x310, ID_COMMAND = 0x300, SPURIOUS = 0xf0, INIT = 0x4500, STARTUP = 0x4600 };
enum { PRESENT = 1, WRITABLE = 2, UNCACHED = 1 << 4 };
#define TRAMPOLINE 0x8000ull
#define APIC_AT 0xfee00000ull
#define APIC (HEAP + HEAP_SIZE)

extern char trampoline[], trampoline_end[];
void second_main(void);

u64 second_seen[32];
static volatile bool alive, enough, over;
static u64 root;

static void apic_write(u64 at, u32 value) { *(volatile u32 *)(APIC + at) = value; }

void smp_start(void) {
    u8 *to = from_physical(TRAMPOLINE), *from = from_physical((u64)trampoline);
    for (u64 i = 0; i < (u64)(trampoline_end - trampoline); i++)
        to[i] = from[i];
    root = READ_REGISTER("cr3");
    *page_entry(root, APIC, true) = APIC_AT | UNCACHED | WRITABLE | PRESENT;
    apic_write(ID_COMMAND_HIGH, 1 << 24);
    apic_write(ID_COMMAND, INIT);
    apic_write(ID_COMMAND, STARTUP | TRAMPOLINE >> 12);
    while (!alive)
        asm volatile("pause");
}

void smp_report(void) {
    static const u8 SHOWN[] = {6, 13, 14};
    enough = true;
    while (!over)
        asm volatile("pause");
    print("second:");
    for (u64 i = 0; i < sizeof SHOWN; i++) {
        print(" ");
        print_decimal(SHOWN[i]);
        print("=");
        print_decimal(second_seen[SHOWN[i]]);
    }
    print("\n");
}

void second_main(void) {
    u64 wild = 0x0000123456789000, not_canonical = 0x8000000000000000;
    WRITE_REGISTER("cr3", root);
    second_traps_start();
    alive = true;
    while (!enough) {
        bool good = FAULTS("ud2", );
        good = FAULTS("movb (%1), %%al", "r"(not_canonical), "a"(0)) && good;
        good = FAULTS("movb (%1), %%al", "r"(wild), "a"(0)) && good;
        if (!good)
            power_off(2);
    }
    over = true;
    for (;;)
        asm volatile("cli; hlt");
}
