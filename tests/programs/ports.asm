; Guarded ports: where a monitor's memory, device or doorbell may be reached.  The
; guest prints what each access reads and leaves, and, last, ALIVE.

%include "inc/boot.inc"
%include "inc/console.inc"
%include "inc/long.inc"

BUFFER          equ 0x300000
SHARED         equ 0x8000000000        ; where a monitor may have its memory
CONFIG          equ 0xCF8
DMA_HIGH        equ 0x514
DMA_LOW         equ 0x518
DMA_READ        equ 2
DMA_SKIP        equ 4
DMA_SELECT      equ 8
DMA_WRITE       equ 16
DOORBELL        equ 0xA20
HOTPLUG         equ 0xAE00

        WIDTH 64
main64: call    load_idt
%macro GATE 2
        mov     eax, %1
        mov     ebx, %2
        call    set_gate
%endmacro
        GATE    1, on_db
        GATE    6, on_ud
        GATE    13, on_fault
        GATE    14, on_fault
        xor     r12d, r12d              ; #UD and #DB seen
        call    configuration
        call    doorbell
        call    dma
        call    hotplug
        call    strings
        mov     ecx, 1000
.ud:    ud2
        loop    .ud
        PRINT   'events: '
        mov     eax, r12d
        call    putdec
        call    newline
        PRINT   'ALIVE', 10
        jmp     finish

; EAX in hexadecimal and a blank
show:   push    rcx
        mov     cl, 8
        call    puthex
        PRINT   ' '
        pop     rcx
        ret

%macro READ 2                           ; size, port
        mov     dx, %2
        mov     eax, 0x5A5A5A5A
        in      %1, dx
        call    show
%endmacro

%macro SEND 3                           ; register, port, value
        mov     dx, %2
        mov     eax, %3
        out     dx, %1
%endmacro

%macro CHECK 3                          ; the same, and what the configuration is then
        SEND    %1, %2, %3
        READ    eax, CONFIG
        READ    eax, CONFIG + 4
%endmacro

configuration:
        PRINT   'configuration: '
        CHECK   eax, CONFIG, 0x8000F700
        CHECK   eax, CONFIG, 0x80000008
        CHECK   al, CONFIG, 0x12
        CHECK   ax, CONFIG, 0x1234
%assign port CONFIG - 3
%rep 3
        CHECK   eax, port, 0x12345678
%assign port port + 1
%endrep
        CHECK   ax, CONFIG - 1, 0x1234
        CHECK   eax, CONFIG + 2, 0x12345678
        SEND    eax, CONFIG, 0x8000F7FC
%assign port CONFIG - 3
%rep 8
        READ    eax, port
        READ    ax, port
        READ    al, port
%assign port port + 1
%endrep
        jmp     newline

doorbell:
        PRINT   'doorbell: '
%assign port DOORBELL - 3
%rep 5
        READ    eax, port
        READ    ax, port
        READ    al, port
        SEND    eax, port, 0x78787878
        SEND    ax, port, 0x5858
%assign port port + 1
%endrep
        jmp     newline

; a DMA with control EAX, of ECX bytes at RDI, by a descriptor at RSI; shows its
; control and what the buffer begins with
transfer:
        bswap   eax
        mov     [rsi], eax
        mov     eax, ecx
        bswap   eax
        mov     [rsi + 4], eax
        mov     rax, rdi
        bswap   rax
        mov     [rsi + 8], rax
        mov     rax, rsi
        call    start
        mov     eax, [rsi]
        bswap   eax
        call    show
        mov     eax, [BUFFER + 0x1000]
        bswap   eax
        jmp     show

; the descriptor at RAX
start:  mov     rbx, rax
        shr     rax, 32
        bswap   eax
        mov     dx, DMA_HIGH
        out     dx, eax
        mov     eax, ebx
        bswap   eax
        mov     dx, DMA_LOW
        out     dx, eax
        ret

%macro DMA 3                            ; control, bytes, address
        mov     esi, BUFFER
        mov     eax, %1
        mov     ecx, %2
        mov     rdi, %3
        call    transfer
%endmacro

dma:    PRINT   'dma: '
        READ    eax, DMA_HIGH
        READ    ax, DMA_HIGH
        READ    al, DMA_LOW
        DMA     DMA_SELECT | DMA_READ, 4, BUFFER + 0x1000
        DMA     DMA_SELECT | DMA_READ, 3, BUFFER + 0x1000
        DMA     DMA_READ, 3, BUFFER + 0x1000            ; the rest, and zeros
        DMA     DMA_SELECT | DMA_SKIP, 2, SHARED
        DMA     DMA_READ, 2, BUFFER + 0x1000
        DMA     DMA_SELECT, 4, SHARED
        DMA     DMA_SELECT | DMA_READ, 0, SHARED
%macro REACHES 2
        DMA     DMA_SELECT | DMA_READ, %1, %2
        DMA     DMA_READ, 2, BUFFER + 0x1000
%endmacro
        REACHES 1, SHARED
        REACHES 1, SHARED + 0x3018
        REACHES 3, SHARED + 0xFFFFFE
        REACHES 0x4000, SHARED - 2
        REACHES 0x2000000, SHARED - 0x1000000
        REACHES 3, SHARED + 0x1000000
        DMA     DMA_SELECT | DMA_WRITE, 4, SHARED
        mov     esi, BUFFER + 0x200000 - 6              ; it crosses a mebibyte
        mov     eax, DMA_SELECT | DMA_READ
        mov     ecx, 4
        mov     edi, BUFFER + 0x1000
        call    transfer
        mov     rax, SHARED + 0x3000                   ; a descriptor there,
        call    start
        mov     rax, SHARED - 8
        call    start
        mov     eax, 128 << 20                          ; and behind the end of RAM
        call    start
        mov     eax, (128 << 20) - 8
        call    start
        mov     dword [BUFFER + 0x1000], 0
        DMA     DMA_READ, 2, BUFFER + 0x1000            ; the others were not even begun
        mov     eax, BUFFER
        bswap   eax
        SEND    ax, DMA_LOW, 0x3000                     ; nor are these
        SEND    al, DMA_LOW, 0x30
        SEND    eax, DMA_LOW + 1, 0x3000
        SEND    eax, DMA_LOW - 2, 0x3000
        mov     eax, [BUFFER]
        call    show
        jmp     newline

hotplug:
        PRINT   'hotplug: '
        SEND    eax, HOTPLUG + 16, 0
%assign port HOTPLUG
%rep 6
        READ    eax, port
%assign port port + 4
%endrep
        SEND    eax, HOTPLUG + 8, 1 << 0x1E
        SEND    eax, HOTPLUG + 8, 3 << 0x1E
        SEND    eax, HOTPLUG + 8, 0
        SEND    ax, HOTPLUG + 8, 0xFFFF
        READ    eax, HOTPLUG + 8
        jmp     newline

%macro STRING 2+                        ; elements, instruction; shows RCX, RSI, RDI
        mov     ecx, %1
        %2
        call    registers
%endmacro

registers:
        mov     eax, ecx
        call    show
        mov     eax, esi
        call    show
        mov     eax, edi
        jmp     show

strings:
        PRINT   'strings: '
        mov     esi, addresses
        mov     edi, BUFFER + 0x1000
        mov     dx, CONFIG
        STRING  4, rep outsd
        READ    eax, CONFIG
        READ    eax, CONFIG + 4
        mov     dx, CONFIG
        STRING  2, rep insd
        STRING  0, rep outsd
        STRING  9, insw
        STRING  9, insb
        std
        STRING  2, a32 rep insd
        cld
        mov     rax, 0xAAAAAAAA00000000
        or      rdi, rax
        or      rsi, rax
        STRING  1, a32 es rep outsd
        STRING  1, a32 rep insb
        call    newline
        mov     esi, BUFFER + 0x1000
        mov     ecx, 6
.dump:  lodsd
        call    show
        loop    .dump
        mov     edi, BUFFER + 0x1000
        mov     dx, DOORBELL
        STRING  8, rep insb
        STRING  3, rep insd
        STRING  16, rep outsb
        mov     eax, [BUFFER + 0x1010]
        call    show
        mov     dword [BUFFER], DMA_SELECT << 24 | DMA_READ << 24
        mov     dword [BUFFER + 4], 4 << 24
        mov     rax, BUFFER + 0x1100
        bswap   rax
        mov     [BUFFER + 8], rax
        mov     esi, halves
        mov     dx, DMA_HIGH
        outsd
        mov     dx, DMA_LOW
        outsd
        mov     eax, [BUFFER + 0x1100]
        call    show
        call    newline
        mov     esi, addresses          ; a trap after it; REP is not the same in all QEMUs
        mov     edi, BUFFER + 0x1000
        mov     ecx, 3
        mov     dx, CONFIG
        pushfq
        or      qword [rsp], 0x100
        popfq
        outsd
        nop
        pushfq
        and     qword [rsp], ~0x100
        popfq
        call    registers
        mov     eax, r12d
        call    show
        ; into pages that are not there, are read-only, and have no address
        mov     dword [PT_WINDOW], PAGES | PTE_P
        invlpg  [WINDOW]
        mov     edi, BUFFER + 0x1FF8
        mov     dword [PD_LOW], PTE_P | PTE_W | PTE_PS  ; this stays
        mov     esi, WINDOW + 0xFF8
        mov     dx, CONFIG
        mov     r13d, .second
        STRING  5, rep outsd
.second:
        call    registers
        mov     esi, WINDOW + 0xFFE
        mov     r13d, .third
        outsd
.third: mov     edi, WINDOW
        mov     r13d, .fourth
        insd
.fourth:
        mov     rsi, 0x7FFFFFFFFFFF
        mov     r13d, .fifth
        outsw
.fifth: mov     rsi, 1 << 63
        mov     r13d, .sixth
        outsb
.sixth: READ    eax, CONFIG
        mov     eax, [PT_WINDOW]
        call    show
        jmp     newline

        align 4
addresses:
        dd      0x80000000, 0x80000004, 0x8000F700, 0x80000008, 0x80000008
halves: dd      0
        db      BUFFER >> 24, BUFFER >> 16 & 0xFF, BUFFER >> 8 & 0xFF, BUFFER & 0xFF

on_ud:  inc     r12d
        add     qword [rsp], 2
        iretq

on_db:  inc     r12d
        iretq

; shows the error code, CR2 and RIP; goes on at R13
on_fault:
        pop     rax
        push    rcx
        call    show
        mov     rax, cr2
        call    show
        mov     eax, [rsp + 8]
        sub     eax, strings
        call    show
        pop     rcx
        mov     [rsp], r13
        iretq

%define CONSOLE_CODE
%include "inc/console.inc"
%include "inc/gates.inc"
