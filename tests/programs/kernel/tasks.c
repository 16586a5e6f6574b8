/* Two ring 3 processes that take turns, their system calls, and the FPU that goes from one to the other by #NM. */
#include "kernel.h"

enum { STAR = 0xc0000081, LSTAR, CSTAR, SFMASK, GS_BASE = 0xc0000101, TASKS = 3, CR0_TS = 8, FAULT = -14 };

struct cpu {
    u64 stack, user_rsp; /* the offsets stand in traps.S */
};
struct task {
    u64 rsp, root, on_fault;
    bool alive;
    u8 fpu[512] __attribute__((aligned(16)));
    u8 stack[8192] __attribute__((aligned(16)));
};

static struct cpu cpu;
static struct task tasks[TASKS]; /* the first is the kernel's own */
static struct task *current = &tasks[0], *fpu_owner;

void switch_stacks(u64 *save_rsp, u64 load_rsp);
void syscall_entry(void);
void leave(void);
void call_from_user(struct frame *frame);

u64 current_number(void) { return current - tasks; }

void tasks_start(void) {
    wrmsr(STAR, 0x18ull << 48 | (u64)KERNEL_CS << 32);
    wrmsr(LSTAR, (u64)syscall_entry);
    wrmsr(SFMASK, 0x47700); /* TF, IF, DF, IOPL, NT, AC */
    wrmsr(GS_BASE, (u64)&cpu);
    tasks[0].root = READ_REGISTER("cr3");
    tasks[0].alive = true;
    for (u64 number = 1; number < TASKS; number++) {
        struct task *task = &tasks[number];
        u64 *top = (u64 *)(task->stack + sizeof task->stack);
        struct frame *frame = (struct frame *)top - 1;
        *frame = (struct frame){.rdi = number, .rip = (u64)user_main, .cs = USER_CS, .ss = USER_DS};
        frame->rflags = INTERRUPT_FLAG | 2;
        frame->rsp = USER_STACK_TOP - 8;
        u64 *words = (u64 *)frame;
        *--words = (u64)leave;
        task->rsp = (u64)(words - 6); /* what switch_stacks pops */
        task->root = address_space();
        task->alive = true;
        *(u16 *)task->fpu = 0x37f; /* as FNINIT has it */
        *(u32 *)(task->fpu + 24) = 0x1f80;
    }
}

static void yield(void) {
    struct task *before = current, *next = current;
    do {
        if (++next == tasks + TASKS)
            next = tasks;
    } while (!next->alive);
    if (next == before)
        return;
    current = next;
    cpu.stack = (u64)(next->stack + sizeof next->stack);
    set_kernel_stack(cpu.stack);
    WRITE_REGISTER("cr3", next->root);
    if (next == fpu_owner)
        asm volatile("clts");
    else
        WRITE_REGISTER("cr0", READ_REGISTER("cr0") | CR0_TS);
    switch_stacks(&before->rsp, next->rsp);
}

void tasks_run(void) {
    for (bool alive = true; alive;) {
        yield();
        alive = false;
        for (int number = 1; number < TASKS; number++)
            alive |= tasks[number].alive;
    }
    for (int number = 1; number < TASKS; number++)
        address_space_free(tasks[number].root);
}

void fpu_wanted(void) {
    asm volatile("clts");
    if (fpu_owner)
        asm volatile("fxsave64 %0" : "=m"(fpu_owner->fpu));
    asm volatile("fxrstor64 %0" : : "m"(current->fpu));
    fpu_owner = current;
}

bool task_catches(struct frame *frame) {
    if (!current->on_fault)
        return false;
    if (frame->vector != BP)
        frame->rip = current->on_fault;
    current->on_fault = 0;
    return true;
}

void task_dies(void) {
    print_line("ended: task", current_number());
    if (fpu_owner == current)
        fpu_owner = NULL;
    current->alive = false;
    yield();
}

static u64 write_console(const char *text, u64 length) {
    for (u64 i = 0; i < length; i++) {
        if (FAULTS("testb $0, (%1)", "r"(text + i)))
            return FAULT;
        char letter[2] = {text[i], 0};
        print(letter);
    }
    return length;
}

void call_from_user(struct frame *frame) {
    switch (frame->rax) {
    case WRITE:
        frame->rax = write_console((const char *)frame->rdi, frame->rsi);
        break;
    case YIELD:
        yield();
        break;
    case SLEEP:
        wait_idle(frame->rdi);
        break;
    case ON_FAULT:
        current->on_fault = frame->rdi;
        break;
    case EXIT:
        task_dies();
        break;
    default:
        frame->rax = -38;
    }
}
