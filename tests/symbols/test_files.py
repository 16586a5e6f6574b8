import io
import random
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.programs.kernel import build_kernel
from trapline.errors import UsageError
from trapline.report.crash import named
from trapline.symbols import Names, load, parse_option
from trapline.symbols.files import of_image


@pytest.fixture(scope="module")
def symbols(kernel):
    return load(kernel.symbols)


@pytest.fixture(scope="module")
def listed(kernel):
    """Return the functions of the kernel as nm lists them: name, address, size."""
    words = subprocess.run(["nm", "-S", "--defined-only", kernel.symbols], capture_output=True, text=True, check=True)
    rows = [line.split() for line in words.stdout.splitlines()]
    return [(row[3], int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 4 and row[2] in "Tt"]


def test_each_function_is_found_over_its_whole_length(symbols, listed):
    assert len(listed) >= 20
    for name, start, size in listed:
        first, last = symbols.lookup(start), symbols.lookup(start + size - 1)
        assert (first.name, first.offset) == (name, 0)
        assert (last.name, last.offset) == (name, size - 1)


def test_lines_are_those_of_addr2line(kernel, symbols, listed):
    addresses = [start + offset for _, start, size in listed for offset in {0, size // 2, size - 1}]
    words = [f"{address:#x}" for address in addresses]
    told = subprocess.run(
        ["addr2line", "-e", kernel.symbols, *words], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for address, line in zip(addresses, told, strict=True):
        place = line.split(" (discriminator")[0]
        symbol = symbols.lookup(address)
        if place.endswith(":?"):
            assert symbol.source is None
        else:
            assert symbol.source == place.rsplit("/", 1)[1]


def test_each_line_has_an_address_in_each_of_its_functions(kernel, symbols, listed):
    found = symbols.of_source("/another/machine/tasks.c")
    expected = {}
    for name, start, size in listed:
        for address in range(start, start + size):
            symbol = symbols.lookup(address)
            place = symbol.inlined[0].place if symbol.inlined else symbol.source
            if place is not None and place.startswith("tasks.c:"):
                expected.setdefault(int(place.partition(":")[2]), {}).setdefault(name, address)
    assert len(expected) > 20
    assert found == {line: sorted(functions.values()) for line, functions in expected.items()}
    assert symbols.directory(listed[0][1]) == str(build_kernel.HERE)
    assert symbols.of_source("/another/machine/no.c") == {}


def test_inlined_functions_are_those_of_addr2line(kernel, symbols, listed):
    found = {}
    for address in (start + offset for _, start, size in listed for offset in range(0, size, 5)):
        inlined = symbols.lookup(address).inlined
        if inlined:
            found[f"{address:#018x}"] = [part for each in inlined for part in (each.function, each.place)]
    assert len(found) > 20
    command = ["addr2line", "-a", "-f", "-i", "-e", kernel.symbols, *found]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for block in told.split("\n0x"):
        address, *rows = block.strip().splitlines()
        rows = [row.split(" (discriminator")[0].rsplit("/", 1)[-1] for row in rows]
        assert found[f"0x{address.removeprefix('0x')}"] == rows


INLINED = """
static inline __attribute__((always_inline)) void store(int *p) { *(volatile int *)p = 7; }
#line 1 "put.h"
static inline __attribute__((always_inline)) void put(int *p) { store(p); store(p + 1); }
#line 1 "source.c"
void one(int *p) {
    store(p);
    put(p);
}
"""


@pytest.mark.parametrize("options", [("-gdwarf-2",), ("-gdwarf-4", "-m32"), ("-gdwarf-5",)])
@pytest.mark.parametrize(("file", "store"), [("io.h", "io.h:1 in store"), ("rustlib/src/ptr.rs", None)])
def test_where_functions_are_inlined_the_users_line_comes_first(compiled, options, file, store):
    program = compiled(f'#line 1 "{file}"{INLINED}', "-O1", *options)
    symbols = load(program)
    start = symbols.addresses(["one"])["one"]
    found = [symbol for offset in range(0x18) if (symbol := symbols.lookup(start + offset)) is not None]
    assert {symbol.name for symbol in found} == {"one"}
    texts = {str(symbol).split(" ", 1)[1] for symbol in found}
    if store is None:
        inlines = "which inlines store"
        assert {f"(source.c:2, {inlines})", f"(put.h:1 in put, {inlines}, inlined at source.c:3)"} <= texts
    else:
        assert {
            f"({store}, inlined at source.c:2)",
            f"({store}, inlined at put.h:1 in put, inlined at source.c:3)",
        } <= texts
    inside = next(symbol for symbol in found if len(symbol.inlined) == 3)
    assert named(inside)["inlined"] == [
        {"function": "store", "source": f"{file}:1"},
        {"function": "put", "source": "put.h:1"},
        {"function": "one", "source": "source.c:3"},
    ]


@pytest.mark.parametrize("address", [0, 0x7C00, 0x4F_0000, 0x7FFF_FFFF_F000, 0xFFFF_FFFF_8020_0000, (1 << 64) - 1])
def test_an_address_in_no_function_has_no_name(symbols, address):
    assert symbols.lookup(address) is None


def test_data_has_no_name(kernel, symbols):
    words = subprocess.run(["nm", kernel.symbols], capture_output=True, text=True, check=True).stdout
    data = [int(line.split()[0], 16) for line in words.splitlines() if line.split()[1] in "BbDdRr"]
    assert data
    assert not any(symbols.lookup(address) for address in data if address >= 0xFFFF_FFFF_8000_0000)


def test_a_slide_moves_all_of_it(kernel, symbols, listed):
    moved = load(kernel.symbols, slide=0x1234_5000)
    for _, start, _ in listed:
        assert moved.lookup(start + 0x1234_5000 + 1) == symbols.lookup(start + 1)
    assert moved.lookup(listed[-1][1]) is None


def test_words(symbols, listed):
    name, start, _ = next(row for row in listed if row[0] == "kernel_main")
    symbol = symbols.lookup(start + 0x1A)
    assert symbol.place == f"{name}+0x1a"
    assert str(symbol) == f"{name}+0x1a (main.c:{symbol.line})"
    assert str(symbol._replace(file=None)) == f"{name}+0x1a"


def test_the_first_file_that_knows_an_address_names_it(kernel, listed, tmp_path):
    name, start, _ = listed[0]
    other = tmp_path / "System.map"
    other.write_text(f"{start:016x} T renamed\n{start + 4:016x} T behind\n")
    names = Names([load(kernel.symbols)])
    assert names.lookup(start).name == name
    names = Names([load(other), *names.files])
    assert names.lookup(start).place == "renamed+0x0"


def test_many_lookups_take_seconds(symbols, listed):
    names, chance = Names([symbols]), random.Random(1)
    spans = [(start, size) for _, start, size in listed]
    addresses = [start + chance.randrange(size) for start, size in chance.choices(spans, k=200_000)]
    begin = time.process_time()
    for address in addresses:
        names.lookup(address)
    assert time.process_time() - begin < 5
    begin = time.process_time()
    for address in range(200_000):  # and where nothing is remembered
        names.lookup(address)
    assert time.process_time() - begin < 10


def test_two_threads_find_what_one_finds(kernel, symbols):
    addresses = [
        address for function in symbols._ranges.functions for address in range(function.start, function.start + 40, 5)
    ]
    wanted = [symbols.lookup(address) for address in addresses]
    switched = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        names = Names([load(kernel.symbols)])
        with ThreadPoolExecutor(2) as threads:
            upward = threads.submit(lambda: [names.lookup(address) for address in addresses])
            downward = threads.submit(lambda: [names.lookup(address) for address in addresses[::-1]])
    finally:
        sys.setswitchinterval(switched)
    assert upward.result() == wanted
    assert downward.result() == wanted[::-1]


def test_names_of_cpp(compiled):
    pytest.importorskip("cpp_demangle")
    program = compiled(
        "namespace pages { struct Table { int walk(long); }; int Table::walk(long x) { return (int)x; } }\n",
        "-g",
        suffix=".cc",
    )
    words = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    (address,) = (int(line.split()[0], 16) for line in words.splitlines() if "walk" in line)
    symbol = load(program).lookup(address + 1)
    assert (symbol.name, symbol.source) == ("pages::Table::walk(long)", "source.cc:1")


@pytest.mark.parametrize("version", ["-gdwarf-2", "-gdwarf-3", "-gdwarf-4", "-gdwarf-5", "-g -gz"])
@pytest.mark.parametrize("ranges", [True, False], ids=["aranges", "no aranges"])
def test_versions_of_dwarf(compiled, version, ranges):
    source = (
        'int one(void)\n{\n    return 1;\n}\n\n__attribute__((section(".text.far"))) int two(void)\n{ return 2; }\n'
    )
    program = compiled(source, *version.split(), "-Wl,-Ttext=0x100000")
    if not ranges:
        subprocess.run(["objcopy", "--remove-section", ".debug_aranges", program], check=True)
    symbols = load(program)
    found = symbols.addresses(["one", "two"])
    assert symbols.lookup(found["one"]).source == "source.c:2"
    assert symbols.lookup(found["two"]).source == "source.c:7"


def test_32_bits(compiled):
    program = compiled("int one(void) { return 1; }\n", "-m32", "-g")
    symbols = load(program)
    assert str(symbols.lookup(symbols.addresses(["one"])["one"])) == "one+0x0 (source.c:1)"


VARIABLES = """
int counter = 5, zeroed;
static int hidden[4] = {1};
const int constant = 7;
int main(void) { return counter + zeroed + hidden[1]; }
"""


@pytest.mark.parametrize("options", [(), ("-m32",)])
def test_variables(compiled, options):
    program = compiled(VARIABLES, *options)
    listed = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout.splitlines()
    symbols = load(program, 0x1000)
    names = Names([symbols])
    for address, _, name in map(str.split, listed):
        if name in ("counter", "zeroed", "hidden", "constant", "main"):
            assert names.address(name) == int(address, 16) + 0x1000
    assert {"counter", "zeroed", "hidden", "constant"} <= symbols.variables.keys()
    assert "main" not in symbols.variables
    assert names.address("nothing") is None
    assert symbols.lookup(names.address("counter")) is None  # an instruction is in no variable


def test_of_two_variables_of_one_name_the_global_one_is_meant(tmp_path, compiled):
    (tmp_path / "other.c").write_text("static int twice = 1; int *other(void) { return &twice; }\n")
    program = compiled("int twice = 2;\n", str(tmp_path / "other.c"))
    listed = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout.splitlines()
    (address,) = [line.split()[0] for line in listed if line.endswith("D twice")]
    assert load(program).variables["twice"] == int(address, 16)


def test_a_file_that_is_gone_has_no_variables(tmp_path):
    path = tmp_path / "System.map"
    path.write_text("0000000000001000 T kmain\n")
    symbols = load(path)
    path.unlink()
    with pytest.raises(UsageError, match=r"System\.map: No such file"):
        Names([symbols]).address("nothing")


# ---- files that are none


def refused(path):
    with pytest.raises(UsageError) as error:
        load(path)
    words = str(error.value)
    assert words.startswith(str(path))
    assert "\n" not in words
    return words


def test_a_stripped_file(kernel):
    assert "stripped" in refused(kernel.image)
    assert of_image("kernel", lambda: io.BytesIO(kernel.image.read_bytes())) is None


def test_an_image_may_bring_its_symbols(kernel, symbols, listed):
    _, start, _ = listed[0]
    assert of_image("kernel", lambda: io.BytesIO(kernel.symbols.read_bytes())).lookup(start) == symbols.lookup(start)
    assert of_image("sample:x", lambda: io.BytesIO(b"\x55\xaa")) is None
    assert of_image("sample:x", lambda: io.BytesIO(b"\x7fELF")) is None


def test_what_is_no_symbol_file(tmp_path):
    file = tmp_path / "file"
    assert "No such file" in refused(file)
    file.write_bytes(b"")
    assert "not a symbol file" in refused(file)
    file.write_bytes(bytes(512))
    assert "not a symbol file" in refused(file)
    file.write_bytes(b"\x7fELF")
    assert "damaged" in refused(file)
    assert "directory" in refused(tmp_path)


def test_an_object_file(tmp_path, compiled):
    program = compiled("int one(void) { return 1; }\n", "-r")
    assert "relocatable" in refused(program)


def test_a_machine_that_is_no_x86(kernel, tmp_path):
    file = tmp_path / "file"
    data = bytearray(kernel.symbols.read_bytes())
    data[18:20] = (183).to_bytes(2, "little")
    file.write_bytes(data)
    assert "not for x86" in refused(file)


def tried(file):
    """A damaged file is read as far as it goes, or refused in one line."""
    words = ""
    try:
        symbols = load(file)
    except UsageError as error:
        words = str(error)
    assert "\n" not in words
    for address in (0xFFFF_FFFF_8010_6000, 0x40_0000, 0x10_1000, 0) if not words else ():
        str(symbols.lookup(address))


@pytest.mark.slow
def test_files_cut_short(kernel, tmp_path):
    data = kernel.symbols.read_bytes()
    file = tmp_path / "file"
    for size in random.Random(2).sample(range(len(data)), 150):
        file.write_bytes(data[:size])
        tried(file)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chance=st.randoms(use_true_random=False))
def test_damaged_files(kernel, tmp_path, chance):
    data = bytearray(kernel.symbols.read_bytes())
    sections = struct.unpack_from("<Q", data, 40)[0]
    for _ in range(chance.randint(1, 8)):
        area = chance.choice([(0, 64), (sections, len(data)), (0xC000, 0x19000)])
        data[chance.randrange(area[0], min(area[1], len(data)))] = chance.randrange(256)
    file = tmp_path / "file"
    file.write_bytes(data)
    tried(file)


# ---- the option


def test_the_option(tmp_path):
    assert parse_option("vmlinux") == (Path("vmlinux"), None)
    assert parse_option("vmlinux@0x1000") == (Path("vmlinux"), 0x1000)
    assert parse_option("vmlinux@-4096") == (Path("vmlinux"), -4096)
    named = tmp_path / "file@7"
    named.touch()
    assert parse_option(str(named)) == (named, None)
    assert parse_option(f"{named}@1") == (named, 1)
    for bad in ("a@b", "a@", f"a@{1 << 64:#x}"):
        with pytest.raises(UsageError, match="--symbols a@"):
            parse_option(bad)


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("_ZN1a5pages16Table$LT$u32$GT$4walk17h0123456789abcdefE", "a::pages::Table<u32>::walk"),
        ("_RNvMNtCs1234_1a5pagesINtB2_5TablemE4walk", "<a::pages::Table<u32>>::walk"),
    ],
)
def test_rust(tmp_path, mangled, name):
    """What rustc makes of a method, from gcc: a name and its lines."""
    pytest.importorskip("rust_demangler")
    (tmp_path / "a.c").write_text(
        f'int walk(int table) __asm__("{mangled}");\n#line 3 "a.rs"\nint walk(int table) {{ return table + 1; }}\n'
    )
    subprocess.run(["gcc", "-g", "-nostdlib", "-Wl,-e0", "a.c", "-o", "program"], cwd=tmp_path, check=True)
    symbols = load(tmp_path / "program")
    (address,) = (function.start for function in symbols._ranges.functions if "4walk" in function.name)
    symbol = symbols.lookup(address)
    assert symbol.name == name
    assert symbol.source == "a.rs:3"


@pytest.mark.parametrize(
    ("names", "linux"),
    [
        (["entry_SYSCALL_64", "asm_exc_page_fault", "asm_exc_int3"], True),
        (["entry_SYSCALL_64", "page_fault", "int3"], True),
        (["divide_error", "page_fault", "general_protection", "double_fault"], False),
        (["entry_SYSCALL_64"], False),
    ],
)
def test_which_kernel_is_linux(tmp_path, names, linux):
    path = tmp_path / "System.map"
    path.write_text("".join(f"{0x1000 + 16 * place:016x} T {name}\n" for place, name in enumerate(names)))
    assert load(path).is_linux is linux
