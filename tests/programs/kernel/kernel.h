/* A small kernel that makes every exception a kernel lives with: demand paging, lazy FPU, system calls, faults. */
#ifndef KERNEL_H
#define KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define KERNEL_BASE 0xffffffff80000000ull /* physical address 0 */
#define HEAP 0xffffc00000000000ull
#define HEAP_SIZE (1ull << 30)
#define USER_STACK_TOP 0x7fff0000ull
#define USER_STACK_SIZE 0x10000ull
#define PAGE 4096ull

enum selector {
    KERNEL_CS = 0x08,
    KERNEL_DS = 0x10,
    USER_DS = 0x20 | 3,
    USER_CS = 0x28 | 3,
    TSS = 0x30,
    ABSENT = 0x40, /* a data segment that is not present */
    SECOND_TSS = 0x50,
};

enum vector { DE = 0, DB = 1, BP = 3, NM = 7, DF = 8, PF = 14, IRQ0 = 32, INT80 = 0x80, SYSCALL = 0x100 };

enum rflags { TRAP_FLAG = 1 << 8, INTERRUPT_FLAG = 1 << 9, RESUME_FLAG = 1 << 16 };

enum call { WRITE = 1, YIELD, SLEEP, ON_FAULT, EXIT };

/* What the stubs in traps.S leave on the stack. */
struct frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    u64 vector, error;
    u64 rip, cs, rflags, rsp, ss;
};

/* console.c */
void print(const char *text);
void print_hex(u64 value);
void print_decimal(u64 value);
void print_line(const char *name, u64 value);

/* traps.c */
extern u64 frames_hash, debug_hash, debug_traps, seen[32];
extern volatile u64 ticks;
void traps_start(void);
void set_kernel_stack(u64 top);
void timer_start(void);
void wait_idle(u64 count);
void wait_busy(u64 count);

/* memory.c */
extern u64 pages_mapped, pages_copied;
void memory_start(void);
u64 address_space(void);
void address_space_free(u64 root);
u64 *page_entry(u64 root, u64 address, bool make);
bool map_on_demand(u64 address, u64 error, bool user);
void heap_release(void);

/* tasks.c */
void tasks_start(void);
void tasks_run(void);
bool task_catches(struct frame *frame);
void task_dies(void);
void fpu_wanted(void);
u64 current_number(void);

/* selftest.c */
void selftest(void);

/* smp.c: in the build with SMP */
extern u64 second_seen[32];
void smp_start(void);
void smp_report(void);
void second_traps_start(void);

/* user.c */
void user_main(u64 number);

static inline void outb(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

/* Newer QEMUs go on for a while after the OUT. */
_Noreturn static inline void power_off(u8 status) {
    asm volatile("cli");
    outb(0xf4, status);
    for (;;)
        asm volatile("hlt");
}

static inline u8 inb(u16 port) {
    u8 value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void wrmsr(u32 number, u64 value) {
    asm volatile("wrmsr" : : "c"(number), "a"((u32)value), "d"((u32)(value >> 32)));
}

#define READ_REGISTER(name)                          \
    ({                                               \
        u64 value_;                                  \
        asm volatile("mov %%" name ", %0" : "=r"(value_)); \
        value_;                                      \
    })
#define WRITE_REGISTER(name, value) asm volatile("mov %0, %%" name : : "r"((u64)(value)) : "memory")

static inline void *from_physical(u64 address) { return (void *)(address + KERNEL_BASE); }
static inline u64 to_physical(const void *pointer) { return (u64)pointer - KERNEL_BASE; }

/* Run one instruction of ours that may fault; say whether it did. The fault continues at the label 2. */
#define FAULTS(instruction, ...)                                                            \
    ({                                                                                      \
        u32 faulted_ = 1;                                                                   \
        asm volatile("1: " instruction "\n\txorl %0, %0\n2:\n"                              \
                     ".pushsection .fixups, \"a\"\n.quad 1b, 2b\n.popsection"               \
                     : "+&r"(faulted_)                                                      \
                     : __VA_ARGS__                                                          \
                     : "memory", "cc");                                                     \
        faulted_ != 0;                                                                      \
    })

#endif
