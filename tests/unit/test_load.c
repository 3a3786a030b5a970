/* SPDX-License-Identifier: Apache-2.0 */
#include "abi/linux_boot.h"
#include "base/sha256.h"
#include "os/err.h"
#include "vmm/boot.h"
#include "vmm/load.h"
#include "vmm/vcpu_state.h"

#include <elf.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define CODE_AT 0x200000ull
#define ELF_SIZE (sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr) + 16)

static struct mem *mem;
static uint8_t elf[ELF_SIZE];

static Elf64_Ehdr *eh(void)
{
	return (Elf64_Ehdr *)(void *)elf;
}

static Elf64_Phdr *ph(void)
{
	return (Elf64_Phdr *)(void *)(elf + sizeof(Elf64_Ehdr));
}

/* A kernel of sixteen bytes at 2 MiB. */
static int setup(void **state)
{
	memset(elf, 0, sizeof(elf));
	memcpy(eh()->e_ident, ELFMAG, SELFMAG);
	eh()->e_ident[EI_CLASS] = ELFCLASS64;
	eh()->e_ident[EI_DATA] = ELFDATA2LSB;
	eh()->e_type = ET_EXEC;
	eh()->e_machine = EM_X86_64;
	eh()->e_entry = CODE_AT + 4;
	eh()->e_phoff = sizeof(Elf64_Ehdr);
	eh()->e_phentsize = sizeof(Elf64_Phdr);
	eh()->e_phnum = 1;
	*ph() = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = ELF_SIZE - 16, .p_paddr = CODE_AT,
			      .p_vaddr = 0xffffffff81000000, .p_filesz = 16, .p_memsz = 64 };
	memcpy(elf + ELF_SIZE - 16, "kernel kernel 16", 16);
	return mem_create(8 << 20, &mem, NULL);
}

static int teardown(void **state)
{
	mem_destroy(mem);
	return 0;
}

static void expect_elf(int code, const char *word)
{
	struct err err = { 0 };
	struct elf_info info;

	assert_int_equal(elf_load(mem, elf, sizeof(elf), &info, &err), code);
	if (!strstr(err.msg, word))
		fail_msg("'%s' lacks '%s'", err.msg, word);
}

static void test_elf_segments_land_at_their_physical_address(void **state)
{
	struct elf_info info;
	char *at = mem_at(mem, CODE_AT, 64);

	memset(at, 0xff, 64);
	assert_int_equal(elf_load(mem, elf, sizeof(elf), &info, NULL), 0);
	assert_memory_equal(at, "kernel kernel 16\0\0\0\0", 20);
	assert_int_equal(at[63], 0);
	assert_int_equal(info.entry, CODE_AT + 4);
	assert_int_equal(info.end, CODE_AT + 64);
}

static void test_bad_elf_files_are_explained(void **state)
{
	eh()->e_ident[EI_CLASS] = ELFCLASS32;
	expect_elf(-ENOEXEC, "32-bit");
	eh()->e_ident[EI_CLASS] = ELFCLASS64;
	eh()->e_machine = EM_AARCH64;
	expect_elf(-ENOEXEC, "architecture");
	eh()->e_machine = EM_X86_64;
	eh()->e_type = ET_REL;
	expect_elf(-ENOEXEC, "executable");
	eh()->e_type = ET_EXEC;
	eh()->e_phoff = UINT64_MAX - 8;
	expect_elf(-ENOEXEC, "truncated");
	eh()->e_phoff = sizeof(Elf64_Ehdr);
	ph()->p_offset = UINT64_MAX - 4;
	expect_elf(-ENOEXEC, "truncated");
	ph()->p_offset = ELF_SIZE - 16;
	ph()->p_memsz = 8;
	expect_elf(-ENOEXEC, "truncated");
	ph()->p_memsz = 1ull << 40;
	expect_elf(-ENOMEM, "the machine has 8 MiB");
	ph()->p_memsz = 64;
	ph()->p_paddr = 0x1000;
	expect_elf(-ENOEXEC, "below 1 MiB");
	ph()->p_paddr = CODE_AT;
	eh()->e_entry = 0;
	expect_elf(-ENOEXEC, "entry point");
	eh()->e_phnum = 0;
	expect_elf(-ENOEXEC, "program headers");
}

/* Wraps @packed, to which the unpacked size is appended, in a bzImage. */
static size_t wrap(uint8_t *out, const void *packed, size_t size, bool append)
{
	struct linux_setup_header h = {
		.setup_sects = 4, .boot_flag = 0xaa55, .header = LINUX_HEADER_MAGIC,
		.version = 0x20f, .xloadflags = 1, .payload_offset = 8,
		.payload_length = (uint32_t)(size + (append ? 4 : 0)) };
	uint32_t unpacked = ELF_SIZE;

	memset(out, 0, 5 * 512 + 8);
	memcpy(out + 0x1f1, &h, sizeof(h));
	memcpy(out + 5 * 512 + 8, packed, size);
	if (append)
		memcpy(out + 5 * 512 + 8 + size, &unpacked, 4);
	return 5 * 512 + 8 + h.payload_length;
}

static size_t pack_gzip(uint8_t *out, size_t room)
{
	z_stream z = { .next_in = elf, .avail_in = sizeof(elf), .next_out = out,
		       .avail_out = (uInt)room };

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	assert_int_equal(deflateEnd(&z), Z_OK);
	return z.total_out;
}

static size_t pack_lz4(uint8_t *out, size_t room)
{
	int n = LZ4_compress_default((const char *)elf, (char *)out + 8, sizeof(elf), (int)room - 8);

	memcpy(out, "\x02\x21\x4c\x18", 4);
	memcpy(out + 4, &n, 4);
	return 8 + (size_t)n;
}

static size_t pack_xz(uint8_t *out, size_t room)
{
	size_t n = 0;

	assert_int_equal(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, elf, sizeof(elf), out, &n,
						 room), LZMA_OK);
	return n;
}

static size_t pack_zstd(uint8_t *out, size_t room)
{
	return ZSTD_compress(out, room, elf, sizeof(elf), 3);
}

static void expect_unpacks(size_t (*pack)(uint8_t *, size_t), bool append)
{
	uint8_t packed[1024], image[8192], *out;
	size_t n = pack(packed, sizeof(packed)), size;
	struct err err = { 0 };

	n = wrap(image, packed, n, append);
	assert_int_equal(bzimage_unpack(image, n, &out, &size, &err), 0);
	assert_int_equal(size, ELF_SIZE);
	assert_memory_equal(out, elf, size);
	free(out);
	image[5 * 512 + 8 + 40] ^= 0x55;
	image[5 * 512 + 8 + 14] ^= 0x55;
	if (bzimage_unpack(image, n, &out, &size, &err) == 0)
		free(out);	/* formats without checksum may not notice */
	else
		assert_non_null(strstr(err.msg, "corrupt"));
}

static void test_every_compression_unpacks(void **state)
{
	expect_unpacks(pack_gzip, false);
	expect_unpacks(pack_xz, true);
	expect_unpacks(pack_lz4, true);
	expect_unpacks(pack_zstd, true);
}

static void test_bad_bzimages_are_explained(void **state)
{
	uint8_t packed[1024], image[8192], *out;
	size_t n = wrap(image, packed, pack_gzip(packed, sizeof(packed)), false), size;
	struct err err = { 0 };

	assert_int_equal(bzimage_unpack(image, n - 1, &out, &size, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "truncated"));
	assert_int_equal(bzimage_unpack(image, 0x210, &out, &size, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "truncated"));
	image[0x236] = 0;
	assert_int_equal(bzimage_unpack(image, n, &out, &size, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "32-bit"));
	image[0x236] = 1;
	image[0x206] = 2;
	image[0x207] = 2;
	assert_int_equal(bzimage_unpack(image, n, &out, &size, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "too old"));
	image[0x206] = 0xf;
	memset(image + 5 * 512 + 8, 0x11, 6);
	assert_int_equal(bzimage_unpack(image, n, &out, &size, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "does not know"));
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static unsigned count_files(const char *dir, const char *suffix)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned n = 0;

	while ((e = readdir(d)))
		n += strlen(e->d_name) > 4 && strstr(e->d_name, suffix) != NULL;
	closedir(d);
	return n;
}

static void test_a_kernel_is_unpacked_once_into_the_cache(void **state)
{
	char dir[] = "/tmp/roux-test-XXXXXX", path[64], cache[64], command[128];
	uint8_t packed[1024], image[8192];
	size_t n = wrap(image, packed, pack_gzip(packed, sizeof(packed)), false);
	struct kernel k;

	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/bzImage", dir);
	(void)snprintf(cache, sizeof(cache), "%s", dir);
	write_file(path, image, n);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(kernel_open(path, cache, &k, NULL), 0);
		assert_int_equal(k.size, ELF_SIZE);
		assert_memory_equal(k.image, elf, ELF_SIZE);
		assert_int_equal(k.mapped != 0, i == 1);	/* found the second time */
		kernel_close(&k);
		assert_int_equal(count_files(dir, ".elf"), 1);
	}
	elf[ELF_SIZE - 1] ^= 1;	/* another kernel, another entry */
	n = wrap(image, packed, pack_gzip(packed, sizeof(packed)), false);
	write_file(path, image, n);
	assert_int_equal(kernel_open(path, cache, &k, NULL), 0);
	assert_memory_equal(k.image, elf, ELF_SIZE);
	kernel_close(&k);
	assert_int_equal(count_files(dir, ".elf"), 2);
	assert_int_equal(kernel_open(path, "/nonexistent", &k, NULL), 0);
	kernel_close(&k);
	(void)snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

static void test_what_is_no_kernel_is_named(void **state)
{
	struct err err = { 0 };
	struct kernel k;

	assert_int_equal(kernel_open("/nonexistent", NULL, &k, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nonexistent"));
	assert_int_equal(kernel_open("/etc/passwd", NULL, &k, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "not a Linux kernel"));
	assert_int_equal(kernel_open("/tmp", NULL, &k, &err), -ENOEXEC);
	assert_int_equal(kernel_open("/dev/null", NULL, &k, &err), -ENOEXEC);
}

static void test_boot_parameters_describe_the_machine(void **state)
{
	const struct kernel k = { .image = elf, .size = sizeof(elf) };
	const struct boot_blob parts[] = { { "first", 5 }, { "second!", 7 } };
	const struct boot_spec spec = { .kernel = &k, .cmdline = "console=ttyS0", .initrd = parts,
					.ninitrd = 2, .rsdp = 0xe0000 };
	static struct vcpu_state s;
	const struct linux_boot_params *bp;
	uint64_t ram = 0;

	assert_int_equal(boot_load(mem, &spec, &s, NULL), 0);
	bp = mem_at(mem, s.gpr[RSI], sizeof(*bp));
	assert_int_equal(s.rip, CODE_AT + 4);
	assert_int_equal(bp->hdr.boot_flag, 0xaa55);
	assert_int_equal(bp->acpi_rsdp_addr, 0xe0000);
	assert_string_equal((char *)mem_at(mem, bp->hdr.cmd_line_ptr, 64), "console=ttyS0");
	assert_int_equal(bp->hdr.ramdisk_size, 15);
	assert_int_equal(bp->hdr.ramdisk_image % 4096, 0);
	assert_memory_equal(mem_at(mem, bp->hdr.ramdisk_image, 15), "first\0\0\0second!", 15);
	for (unsigned i = 0; i < bp->e820_entries; i++)
		if (bp->e820_table[i].type == LINUX_E820_RAM) {
			ram += bp->e820_table[i].size;
			assert_non_null(mem_at(mem, bp->e820_table[i].addr, bp->e820_table[i].size));
		}
	assert_in_range(ram, (7 << 20) + 0x80000, 8 << 20);
}

static void test_what_does_not_fit_is_refused(void **state)
{
	const struct kernel k = { .image = elf, .size = sizeof(elf) };
	static char big[3000];
	static struct vcpu_state s;
	struct boot_blob blob = { big, 7 << 20 };
	struct err err = { 0 };

	memset(big, 'x', sizeof(big) - 1);
	assert_int_equal(boot_load(mem, &(struct boot_spec){ .kernel = &k, .cmdline = big }, &s, &err),
			 -E2BIG);
	assert_non_null(strstr(err.msg, "2999 bytes"));
	assert_int_equal(boot_load(mem, &(struct boot_spec){ .kernel = &k, .initrd = &blob,
							     .ninitrd = 1 }, &s, &err), -ENOMEM);
	assert_non_null(strstr(err.msg, "initramfs"));
	blob.size = SIZE_MAX;
	assert_int_equal(boot_load(mem, &(struct boot_spec){ .kernel = &k, .initrd = &blob,
							     .ninitrd = 1 }, &s, &err), -ENOMEM);
}

static void test_sha256_of_known_messages(void **state)
{
	static const char *const want[] = {
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
	};
	static const char *const msg[] = {
		"", "abc", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq" };
	char hex[SHA256_HEX_SIZE];
	struct sha256 sha;

	for (int i = 0; i < 3; i++) {
		size_t len = strlen(msg[i]), half = len / 3;

		sha256_init(&sha);	/* FIPS 180-4 examples, in two pieces */
		sha256_add(&sha, msg[i], half);
		sha256_add(&sha, msg[i] + half, len - half);
		sha256_finish_hex(&sha, hex);
		assert_string_equal(hex, want[i]);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_elf_segments_land_at_their_physical_address),
		T(test_bad_elf_files_are_explained),
		T(test_every_compression_unpacks),
		T(test_bad_bzimages_are_explained),
		T(test_a_kernel_is_unpacked_once_into_the_cache),
		T(test_what_is_no_kernel_is_named),
		T(test_boot_parameters_describe_the_machine),
		T(test_what_does_not_fit_is_refused),
		T(test_sha256_of_known_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
