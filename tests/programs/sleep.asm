; Suspends the machine to RAM (ACPI S3) with an alarm of the RTC to wake it, and shows the
; processor as waking leaves it. TIMES times; then ENDS_IN_RESET resets the machine, else
; the guest ends by itself.
;
; The reset vector below 4 GiB jumps to F000:E05B, which is shadow RAM: a jump written
; there brings the CPU back to this guest, as it does in reset.asm.

%include "inc/boot.inc"
%include "inc/console.inc"

BIOS            equ 0xF000
BIOS_ENTRY      equ 0xE05B
PAM             equ 0x80000058          ; i440FX: 59h is for F0000h
PIIX4_PM        equ 0x80000B00          ; the configuration space of its power management
PM_STATUS       equ 0x600               ; where that goes, as the BIOS has it
PM_ENABLE       equ 0x602
PM_CONTROL      equ 0x604
RTC_STS         equ 1 << 10
WAK_STS         equ 1 << 15
SLP_TYP_S3      equ 1 << 10             ; as the DSDT of QEMU's pc has it
SLP_EN          equ 1 << 13

%ifndef TIMES
%define TIMES 2
%endif

%macro CMOS 2                           ; register, value
        mov     al, %1
        out     0x70, al
        mov     al, %2
        out     0x71, al
%endmacro

        WIDTH 16
entry16:
        mov     sp, 0x7000
        mov     dx, 0xCF8
        mov     eax, PAM
        out     dx, eax
        mov     dx, 0xCFD
        mov     al, 0x30
        out     dx, al
        push    BIOS
        pop     es
        mov     byte [es:BIOS_ENTRY], 0xEA      ; JMP 0:awake
        mov     dword [es:BIOS_ENTRY + 1], awake
        mov     dword [0x1000], 0               ; how often it slept
        lidt    [ivt]
        mov     word [6 * 4], undefined
        mov     word [6 * 4 + 2], 0
        ud2

sleep:  call    map_pm
        PRINT   'asleep', 10
        inc     dword [0x1000]
        CMOS    0x01, 0xFF              ; an alarm in every second,
        CMOS    0x03, 0xFF              ; minute
        CMOS    0x05, 0xFF              ; and hour
        CMOS    0x0B, 0x22              ; 24 hours a day, with an interrupt
        mov     al, 0x0C                ; which is not pending any more
        out     0x70, al
        in      al, 0x71
        mov     dx, PM_ENABLE
        mov     ax, RTC_STS
        out     dx, ax
        mov     dx, PM_STATUS
        mov     ax, WAK_STS | RTC_STS
        out     dx, ax
        mov     dx, PM_CONTROL
        mov     ax, SLP_TYP_S3 | SLP_EN
        out     dx, ax
.wait:  hlt
        jmp     .wait

undefined:
        PRINT   '#UD', 10
        pop     ax
        add     ax, 2
        push    ax
        iret

map_pm: mov     dx, 0xCF8               ; waking clears what the BIOS wrote there
        mov     eax, PIIX4_PM + 0x40
        out     dx, eax
        mov     dx, 0xCFC
        mov     eax, PM_STATUS + 1
        out     dx, eax
        mov     dx, 0xCF8
        mov     eax, PIIX4_PM + 0x80
        out     dx, eax
        mov     dx, 0xCFC
        mov     al, 1
        out     dx, al
        ret

awake:  mov     [cs:0x1010], eax
        mov     [cs:0x1014], edx
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     esp, 0x7000
        call    map_pm
        PRINT   'awake '
        mov     eax, [0x1000]
        call    putdec
        PRINT   ' eax='
        mov     eax, [0x1010]
        mov     cl, 8
        call    puthex
        PRINT   ' edx='
        mov     eax, [0x1014]
        mov     cl, 8
        call    puthex
        PRINT   ' cr0='
        mov     eax, cr0
        mov     cl, 8
        call    puthex
        PRINT   ' woken='
        mov     dx, PM_STATUS
        in      ax, dx
        and     eax, WAK_STS
        mov     cl, 4
        call    puthex
        call    newline
        lidt    [ivt]
        ud2
        cmp     dword [0x1000], TIMES
        jb      sleep
%ifdef ENDS_IN_RESET
        mov     dx, 0xCF9
        mov     al, 6
        out     dx, al
.reset: hlt
        jmp     .reset
%else
        PRINT   'done', 10
        jmp     finish
%endif

        align 8
ivt:    dw 0x3FF
        dd 0

%define CONSOLE_CODE
%include "inc/console.inc"
