"""Talk to a guest over its serial port: it answers each line in capitals."""

from trapline import Machine

GUEST = (
    b"\xba\xf8\x03"  # prompt:  mov dx, 0x3f8      the data of COM1
    b"\xb0\x24\xee"  #          mov al, '$'; out dx, al
    b"\xb0\x20\xee"  #          mov al, ' '; out dx, al
    b"\xba\xfd\x03"  # wait:    mov dx, 0x3fd      its line status
    b"\xec\xa8\x01"  #          in al, dx; test al, 1
    b"\x74\xfb"  #              jz wait + 3
    b"\xba\xf8\x03"  #          mov dx, 0x3f8
    b"\xec\x24\xdf"  #          in al, dx; and al, 0xdf
    b"\xee"  #                  out dx, al
    b"\x3c\x0a"  #              cmp al, 10
    b"\x74\xe4"  #              je prompt
    b"\xeb\xeb"  #              jmp wait
)

with Machine(GUEST, entry_mode=16) as m:
    print(m.console.read_until(b"$ ", timeout=60))
    for line in (b"hello\n", b"trapline\n"):
        m.console.write(line)
        print(m.console.read_until(b"$ ", timeout=60))
