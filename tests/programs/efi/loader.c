/* A boot loader as an EFI program: it reads a 64-bit ELF kernel from the folder it was started from, maps it where it
   is linked, in the higher half, by page tables of its own, ends the boot services and calls it. */

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
#define EFI __attribute__((ms_abi))

struct file {
    u64 revision;
    EFI u64 (*open)(struct file *, struct file **, const u16 *name, u64 mode, u64 attributes);
    void *unused[2];
    EFI u64 (*read)(struct file *, u64 *size, void *to);
};
struct volume {
    u64 revision;
    EFI u64 (*open)(struct volume *, struct file **);
};
struct loaded {
    u64 revision;
    void *unused[2], *device;
};
struct services {
    u64 unused[5];
    EFI u64 (*allocate_pages)(u32 how, u32 type, u64 count, u64 *address);
    u64 unused2;
    EFI u64 (*get_memory_map)(u64 *size, void *map, u64 *key, u64 *entry, u32 *version);
    u64 unused3[11];
    EFI u64 (*handle_protocol)(void *handle, const void *guid, void **);
    u64 unused4[9];
    EFI u64 (*exit_boot_services)(void *image, u64 key);
};
struct system {
    u64 unused[12];
    struct services *boot;
};
struct header {
    u8 unused[24];
    u64 entry, segments;
    u8 unused2[16];
    u16 count;
};
struct segment {
    u32 type, flags;
    u64 offset, address, physical, in_file, size;
};

#define HIGHER_HALF 0xffffffff80000000ull
enum { READ = 1, LOADER_DATA = 2, PT_LOAD = 1, PAGES = 512, PAGE = 4096, BIG = 1 << 21 };
enum { PRESENT_WRITABLE = 3, LARGE = 0x80 };
static const u8 LOADED[] = {0xa1, 0x31, 0x1b, 0x5b, 0x62, 0x95, 0xd2, 0x11, 0x8e, 0x3f, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b};
static const u8 VOLUME[] = {0x22, 0x5b, 0x4e, 0x96, 0x59, 0x64, 0xd2, 0x11, 0x8e, 0x39, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b};
static u8 content[1 << 16], memory_map[1 << 16];

static void out(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static void say(const char *text) {
    while (*text)
        out(0x3f8, *text++);
}

/* Ends the machine where something has failed. */
static void check(u64 status, const char *what) {
    if (!status)
        return;
    say(what);
    out(0xf4, 1);
    for (;;)
        __asm__ volatile("hlt");
}

static void read_kernel(void *image, struct services *boot) {
    struct loaded *loaded;
    struct volume *volume;
    struct file *root, *file;
    u64 size = sizeof content;
    check(boot->handle_protocol(image, LOADED, (void **)&loaded), "loader: no loaded image\r\n");
    check(boot->handle_protocol(loaded->device, VOLUME, (void **)&volume), "loader: no volume\r\n");
    check(volume->open(volume, &root), "loader: no root\r\n");
    check(root->open(root, &file, u"\\kernel", READ, 0), "loader: no kernel\r\n");
    check(file->read(file, &size, content), "loader: not read\r\n");
    check(size == sizeof content, "loader: the kernel is too big\r\n");
}

static void copy(u8 *to, const u8 *from, u64 count) {
    while (count--)
        *to++ = *from++;
}

/* Maps 4 GiB at their own addresses, and 2 MiB of the kernel in the higher half. */
static u64 map(u64 tables, u64 kernel) {
    u64 *root = (u64 *)tables, *low = root + PAGES, *high = low + PAGES, *directory = high + PAGES;
    u64 *pages = directory + PAGES, *directories = pages + PAGES;
    root[0] = (u64)low | PRESENT_WRITABLE;
    root[PAGES - 1] = (u64)high | PRESENT_WRITABLE;
    high[PAGES - 2] = (u64)directory | PRESENT_WRITABLE;
    directory[0] = (u64)pages | PRESENT_WRITABLE;
    for (u64 i = 0; i < PAGES; i++)
        pages[i] = (kernel + i * PAGE) | PRESENT_WRITABLE;
    for (u64 i = 0; i < 4; i++)
        low[i] = (u64)(directories + i * PAGES) | PRESENT_WRITABLE;
    for (u64 i = 0; i < 4 * PAGES; i++)
        directories[i] = i * BIG | LARGE | PRESENT_WRITABLE;
    return tables;
}

EFI void efi_main(void *image, struct system *system) {
    struct services *boot = system->boot;
    struct header *header = (struct header *)content;
    u64 kernel, tables, size = sizeof memory_map, key, entry;
    u32 version;
    say("loader: up\r\n");
    read_kernel(image, boot);
    check(boot->allocate_pages(0, LOADER_DATA, PAGES, &kernel), "loader: no memory\r\n");
    check(boot->allocate_pages(0, LOADER_DATA, 9, &tables), "loader: no memory\r\n");
    for (u64 i = 0; i < PAGES * PAGE; i++)
        ((volatile u8 *)kernel)[i] = 0;
    for (u64 i = 0; i < 9 * PAGE; i++)
        ((volatile u8 *)tables)[i] = 0;
    struct segment *segment = (struct segment *)(content + header->segments);
    for (u64 i = 0; i < header->count; i++)
        if (segment[i].type == PT_LOAD)
            copy((u8 *)(kernel + segment[i].address - HIGHER_HALF), content + segment[i].offset, segment[i].in_file);
    check(boot->get_memory_map(&size, memory_map, &key, &entry, &version), "loader: no map\r\n");
    check(boot->exit_boot_services(image, key), "loader: the boot services go on\r\n");
    say("loader: to the kernel\r\n");
    __asm__ volatile("cli\n mov %0, %%cr3\n jmp *%1" : : "r"(map(tables, kernel)), "r"(header->entry) : "memory");
}
