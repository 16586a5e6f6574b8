; The fault matrix in 64-bit mode: every trigger in both rings, with a whole
; delivery and with a broken one; then debugging, interrupts and MSRs.

%include "inc/boot.inc"
%include "inc/console.inc"
        section .strings
        section .triggers align=4
triggers_start:
        section .breaks align=4
breaks_start:
        section .text
%include "inc/long.inc"
%define REPORT_CODE
        WIDTH 64
%include "inc/report.inc"
%include "inc/table.inc"
%include "long/harness.inc"

main64:
%ifdef CPUS
        call    start_other
%endif
        call    bench_init
        call    run_table
%ifdef CPUS
        jmp     end_of_matrix
%endif
%ifndef SHORT                           ; a few triggers of the matrix, for a slow machine
        FORGET_REGISTERS
        call    run_events
        call    run_registers
%endif
        call    report_end
        jmp     finish

%include "inc/timer.inc"
%include "long/breaks.inc"
%include "long/triggers.inc"
%include "long/debug.inc"
%include "long/events.inc"
%include "long/registers.inc"

%ifdef CPUS
%include "long/cpus.inc"
%endif

%define CONSOLE_CODE
%include "inc/console.inc"

        section .triggers
triggers_end:
        section .breaks
breaks_end:
