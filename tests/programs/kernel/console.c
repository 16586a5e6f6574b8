/* COM1, polled. */
#include "kernel.h"

enum { COM1 = 0x3f8, LINE_STATUS = COM1 + 5, TRANSMITTER_EMPTY = 0x20 };

static void put(char letter) {
    while (!(inb(LINE_STATUS) & TRANSMITTER_EMPTY)) {
    }
    outb(COM1, letter);
}

void print(const char *text) {
    for (; *text; text++)
        put(*text);
}

void print_hex(u64 value) {
    int shift = 60;
    while (shift && !(value >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
}

void print_decimal(u64 value) {
    if (value >= 10)
        print_decimal(value / 10);
    put('0' + value % 10);
}

void print_line(const char *name, u64 value) {
    print(name);
    print(" ");
    print_decimal(value);
    print("\n");
}
