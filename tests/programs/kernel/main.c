/* The order of things. */
#include "kernel.h"

static const u8 SHOWN[] = {0, 1, 3, 6, 7, 8, 11, 12, 13, 14, 16, 19};

void kernel_main(void);

void kernel_main(void) {
    memory_start();
    traps_start();
    print("kernel: up\n");
#ifdef SMP
    smp_start();
#endif
    selftest();
    timer_start();
    wait_idle(5);
    wait_busy(5);
    print("timer: idle and busy\n");
    tasks_start();
    tasks_run();
    print_line("memory: mapped", pages_mapped);
    print_line("memory: copied", pages_copied);
#ifdef SMP
    smp_report();
#endif
    print("seen:");
    for (u64 i = 0; i < sizeof SHOWN; i++) {
        print(" ");
        print_decimal(SHOWN[i]);
        print("=");
        print_decimal(seen[SHOWN[i]]);
    }
    print("\nhash ");
    print_hex(frames_hash);
    print("\n");
    power_off(0);
}
