/* Physical pages, page tables, and what is mapped only when it is touched. */
#include "kernel.h"

enum entry { PRESENT = 1, WRITABLE = 2, USER = 4, COPY_ON_WRITE = 1 << 9, OWNED = 1 << 10 };
enum error { ERROR_PRESENT = 1, ERROR_WRITE = 2, ERROR_RESERVED = 8 };
#define NO_EXECUTE (1ull << 63)
#define ADDRESS 0x000ffffffffff000ull

extern char free_memory[], user_load[], typed[], user_data[], user_zeros[], user_end[];
u64 pages_mapped, pages_copied;
static u64 next_page, free_pages, kernel_root;

static u64 page_take(void) {
    u64 page = free_pages;
    if (page) {
        free_pages = *(u64 *)from_physical(page);
    } else {
        page = next_page;
        next_page += PAGE;
    }
    u64 *words = from_physical(page);
    for (u64 i = 0; i < PAGE / 8; i++)
        words[i] = 0;
    return page;
}

static void page_give(u64 page) {
    *(u64 *)from_physical(page) = free_pages;
    free_pages = page;
}

void memory_start(void) {
    next_page = (u64)free_memory;
    kernel_root = page_take();
    u64 *root = from_physical(kernel_root);
    u64 *boot_root = from_physical(READ_REGISTER("cr3"));
    root[511] = boot_root[511];
    root[HEAP >> 39 & 511] = page_take() | WRITABLE | PRESENT;
    WRITE_REGISTER("cr3", kernel_root);
}

u64 address_space(void) {
    u64 page = page_take();
    u64 *root = from_physical(page), *kernel = from_physical(kernel_root);
    for (int i = 256; i < 512; i++)
        root[i] = kernel[i];
    return page;
}

static void table_free(u64 table, int level) {
    u64 *entries = from_physical(table);
    for (int i = 0; i < (level == 4 ? 256 : 512); i++) {
        if (!(entries[i] & PRESENT))
            continue;
        if (level > 1)
            table_free(entries[i] & ADDRESS, level - 1);
        else if (entries[i] & OWNED)
            page_give(entries[i] & ADDRESS);
    }
    page_give(table);
}

void address_space_free(u64 root) {
    WRITE_REGISTER("cr3", kernel_root);
    table_free(root, 4);
}

u64 *page_entry(u64 root, u64 address, bool make) {
    u64 *table = from_physical(root);
    for (int shift = 39; shift > 12; shift -= 9) {
        u64 *entry = &table[address >> shift & 511];
        if (!(*entry & PRESENT)) {
            if (!make)
                return NULL;
            *entry = page_take() | USER | WRITABLE | PRESENT;
        }
        table = from_physical(*entry & ADDRESS);
    }
    return &table[address >> 12 & 511];
}

static void copy_page(u64 *entry) {
    u64 copy = page_take();
    u64 *to = from_physical(copy), *from = from_physical(*entry & ADDRESS);
    for (u64 i = 0; i < PAGE / 8; i++)
        to[i] = from[i];
    *entry = copy | NO_EXECUTE | OWNED | USER | WRITABLE | PRESENT;
    pages_copied++;
}

static bool within(u64 address, u64 begin, u64 end) { return address >= begin && address < end; }

/* Map what belongs at the address, if anything does and may be used so; the access is then done again. */
bool map_on_demand(u64 address, u64 error, bool user) {
    u64 text = (u64)typed, data = (u64)user_data, zeros = (u64)user_zeros, end = (u64)user_end;
    u64 image = (u64)user_load + (address & -PAGE) - text, flags;
    bool in_image = within(address, text, zeros);
    if (error & ERROR_RESERVED)
        return false;
    if (error & ERROR_PRESENT) {
        u64 *entry = page_entry(READ_REGISTER("cr3"), address, false);
        if (!(error & ERROR_WRITE) || !entry || !(*entry & COPY_ON_WRITE))
            return false;
        copy_page(entry);
        asm volatile("invlpg (%0)" : : "r"(address) : "memory");
        return true;
    }
    if (within(address, HEAP, HEAP + HEAP_SIZE)) {
        if (user)
            return false;
        flags = NO_EXECUTE | OWNED | WRITABLE;
    } else if (within(address, text, data)) {
        flags = USER;
    } else if (in_image) {
        flags = NO_EXECUTE | COPY_ON_WRITE | USER;
    } else if (within(address, zeros, end) ||
               within(address, USER_STACK_TOP - USER_STACK_SIZE, USER_STACK_TOP)) {
        flags = NO_EXECUTE | OWNED | USER | WRITABLE;
    } else {
        return false;
    }
    u64 *entry = page_entry(READ_REGISTER("cr3"), address, true);
    *entry = (in_image ? image : page_take()) | flags | PRESENT;
    pages_mapped++;
    return true;
}

/* Unmap the first pages of the heap again. */
void heap_release(void) {
    for (u64 address = HEAP; address < HEAP + 512 * PAGE; address += PAGE) {
        u64 *entry = page_entry(kernel_root, address, false);
        if (entry && *entry & PRESENT) {
            page_give(*entry & ADDRESS);
            *entry = 0;
            asm volatile("invlpg (%0)" : : "r"(address) : "memory");
        }
    }
}
