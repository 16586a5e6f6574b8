; Reads everything that may tell one machine from another: MSRs, CPUID, I/O ports. A line for each
; MSR that is not 0 or refused, and for each port that reads other than the one 4 below, for 8, 16
; and 32 bits. What is read is written back to the MSRs of the permission map, and to one of the others.

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

PM_CONTROL      equ 0x604
SLP_EN          equ 1 << 13             ; with SLP_TYP 0, as the DSDT of QEMU's pc has it
RESUME          equ 0x1000              ; where a #GP goes on; 0: nowhere
VALUES          equ 0x1010              ; what IN of 8, 16 and 32 bits read
BEFORE          equ 0x1020              ; the same of the last four ports

        WIDTH 64
main64: call    load_idt
        mov     eax, 13
        mov     ebx, on_gp
        call    set_gate
        mov     esi, msr_ranges
.msrs:  mov     r12d, [rsi]
        mov     r13d, [rsi + 4]
        call    scan_msrs
        add     esi, 8
        cmp     esi, msr_ranges.end
        jb      .msrs
        mov     esi, cpuid_ranges
.leaves:
        mov     r12d, [rsi]
        mov     r13d, [rsi + 4]
        call    scan_cpuid
        add     esi, 8
        cmp     esi, cpuid_ranges.end
        jb      .leaves
        call    scan_ports
        PRINT   'DONE', 10
        mov     dx, PM_CONTROL          ; off: a machine without trapline has no debug exit
        mov     ax, SLP_EN
        out     dx, ax
        cli
        hlt

on_gp:  add     rsp, 8
        push    rax
        mov     eax, [RESUME]
        mov     [rsp + 8], rax
        pop     rax
        iretq

; R13D MSRs from R12D
scan_msrs:
        mov     edi, msrs_left_out
.known: cmp     r12d, [rdi]
        je      .next
        add     edi, 4
        cmp     edi, msrs_left_out.end
        jb      .known
        mov     ecx, r12d
        mov     dword [RESUME], .refused
        rdmsr
        mov     r8d, eax
        mov     r9d, edx
        or      eax, edx
        jz      .write
        call    .name
        mov     cl, 8
        mov     eax, r9d
        call    puthex
        mov     eax, r8d
        call    puthex
        call    newline
.write: cmp     esi, msr_ranges.others
        jb      .all
        cmp     r13d, 1                 ; the last of a range
        jne     .next
.all:   mov     ecx, r12d
        mov     eax, r8d
        mov     edx, r9d
        mov     dword [RESUME], .read_only
        wrmsr
        jmp     .next
.refused:
        call    .name
        PRINT   'refused', 10
        jmp     .next
.read_only:
        call    .name
        PRINT   'refused when written', 10
.next:  inc     r12d
        dec     r13d
        jnz     scan_msrs
        ret
.name:  PRINT   'msr '
        mov     eax, r12d
        mov     cl, 8
        call    puthex
        mov     al, ' '
        jmp     putc

; R13D leaves from R12D, each with subleaf 0
scan_cpuid:
        mov     eax, r12d
        xor     ecx, ecx
        cpuid
        mov     r8d, eax
        mov     r9d, ebx
        mov     r10d, ecx
        mov     r11d, edx
        PRINT   'cpuid '
        mov     eax, r12d
        mov     cl, 8
        call    puthex
%assign n 8
%rep 4
        PRINT   ' '
        mov     eax, r %+ n %+ d
        call    puthex
%assign n n + 1
%endrep
        call    newline
        inc     r12d
        dec     r13d
        jnz     scan_cpuid
        ret

; all ports in three widths, but those of the table below
scan_ports:
        xor     r12d, r12d
.port:  mov     edx, r12d
        mov     qword [VALUES], -1
        mov     ebx, 1
        call    .allowed
        jc      .next
        in      al, dx
        mov     [VALUES], al
        mov     ebx, 2
        call    .allowed
        jc      .show
        in      ax, dx
        mov     [VALUES + 2], ax
        mov     ebx, 4
        call    .allowed
        jc      .show
        in      eax, dx
        mov     [VALUES + 4], eax
.show:  mov     edi, r12d
        and     edi, 3
        mov     rax, [VALUES]
        xchg    rax, [BEFORE + rdi * 8]
        cmp     rax, [VALUES]
        je      .next
        PRINT   'port '
        mov     eax, r12d
        mov     cl, 4
        call    puthex
        PRINT   ' '
        mov     eax, [VALUES]
        mov     cl, 2
        call    puthex
        PRINT   ' '
        mov     eax, [VALUES + 2]
        mov     cl, 4
        call    puthex
        PRINT   ' '
        mov     eax, [VALUES + 4]
        mov     cl, 8
        call    puthex
        call    newline
.next:  inc     r12d
        cmp     r12d, 0x10000
        jb      .port
        ret

; carry: of the EBX ports from R12D one is left out
.allowed:
        mov     edi, ports_left_out
        lea     ecx, [r12 + rbx - 1]    ; the last of them
.row:   movzx   eax, word [rdi + 2]
        cmp     eax, r12d
        jb      .beyond
        movzx   eax, word [rdi]
        cmp     ecx, eax
        jae     .found
.beyond:
        add     edi, 4
        cmp     edi, ports_left_out.end
        jb      .row
        clc
        ret
.found: stc
        ret

        align 4
msr_ranges:
        dd 0, 0x2000, 0xC0000000, 0x2000, 0xC0010000, 0x2000    ; the permission map's
.others:
        dd 0x40000000, 0x200, 0xFFFFFF00, 0x100
.end:
msrs_left_out:
        dd 0x10                         ; the time stamp counter
        dd 0x1B                         ; moves the local APIC
.end:
cpuid_ranges:
        dd 0, 0x40, 0x40000000, 0x16, 0x80000000, 0x40
.end:

%macro PORTS 2
        dw %1, %2
%endmacro
ports_left_out:
        PORTS   0x0000, 0x000F          ; DMA: a flip-flop turns with each read
        PORTS   0x0020, 0x0020          ; PIC: whether the timer's interrupt is pending just now
        PORTS   0x0040, 0x0043          ; PIT: the time
        PORTS   0x0060, 0x0061          ; keyboard data is taken; refresh toggles with the time
        PORTS   0x0064, 0x0064          ; keyboard status: a key that is there by chance
        PORTS   0x0070, 0x0071          ; RTC: the time
        PORTS   0x00A0, 0x00A0          ; the other PIC
        PORTS   0x00C0, 0x00DF          ; DMA
        PORTS   0x0170, 0x0177          ; IDE: data is taken, the status ends an interrupt
        PORTS   0x01F0, 0x01F7
        PORTS   0x03C0, 0x03DF          ; VGA: flip-flops, retrace goes with the time
        PORTS   0x03F0, 0x03F7          ; floppy: a FIFO
        PORTS   0x03F8, 0x03FF          ; this console
        PORTS   0x0510, 0x0511          ; fw_cfg: the next byte is taken
        PORTS   0x0608, 0x060B          ; the PM timer
        PORTS   0x5658, 0x565B          ; the VMware port, which takes all registers
.end:

%include "inc/gates.inc"
%define CONSOLE_CODE
%include "inc/console.inc"
