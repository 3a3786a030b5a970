/* SPDX-License-Identifier: Apache-2.0 */
#include "build/module.h"
#include "os/err.h"
#include "os/file.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char base[64];
static struct err err;
static struct module_list list;

static int setup(void **state)
{
	snprintf(base, sizeof(base), "/tmp/roux-test-module-XXXXXX");
	assert_non_null(mkdtemp(base));
	err = (struct err){ 0 };
	list = (struct module_list){ 0 };
	return 0;
}

static int teardown(void **state)
{
	module_list_free(&list);
	return file_remove_tree(AT_FDCWD, base);
}

/* An ELF file whose .modinfo is @info, NULs included. */
static size_t make_elf(const char *info, size_t info_len, char ret[1024])
{
	static const char names[] = "\0.modinfo\0.shstrtab";
	Elf64_Ehdr eh = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64 },
			  .e_shoff = sizeof(eh), .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3, .e_shstrndx = 2 };
	Elf64_Shdr sh[3] = { { 0 } };
	size_t at = sizeof(eh) + sizeof(sh);

	sh[1] = (Elf64_Shdr){ .sh_name = 1, .sh_type = SHT_PROGBITS, .sh_offset = at, .sh_size = info_len };
	sh[2] = (Elf64_Shdr){ .sh_name = 10, .sh_type = SHT_STRTAB, .sh_offset = at + info_len,
			      .sh_size = sizeof(names) };
	memcpy(ret, &eh, sizeof(eh));
	memcpy(ret + sizeof(eh), sh, sizeof(sh));
	memcpy(ret + at, info, info_len);
	memcpy(ret + at + info_len, names, sizeof(names));
	return at + info_len + sizeof(names);
}

#define PUT(name, info) put(name, info, sizeof(info))
static void put(const char *name, const char *info, size_t info_len)
{
	char path[256], elf[1024];
	size_t len = make_elf(info, info_len, elf);

	snprintf(path, sizeof(path), "%s/kernel/sub", base);
	assert_int_equal(file_mkdirs(path, 0755, &err), 0);
	snprintf(path, sizeof(path), "%s/kernel/sub/%s", base, name);
	assert_int_equal(file_write_atomic(path, elf, len, 0644, &err), 0);
}

static int load(const char *a, const char *b)
{
	const char *const names[] = { a, b, NULL };

	return module_list_load(base, names, &list, &err);
}

static void test_needed_modules_come_first_and_once(void **state)
{
	PUT("virtio.ko", "license=x\0depends=\0name=virtio");
	PUT("virtio_ring.ko", "depends=virtio");
	PUT("virtio-blk.ko", "depends=virtio_ring,virtio\0softdep=pre: extra gone post: later");
	PUT("extra.ko", "depends=virtio");
	assert_int_equal(load("virtio_blk", "virtio-ring"), 0);
	assert_int_equal(list.count, 4);
	assert_string_equal(list.at[0].name, "virtio");
	assert_string_equal(list.at[1].name, "virtio_ring");
	assert_string_equal(list.at[2].name, "extra");
	assert_string_equal(list.at[3].name, "virtio_blk");
}

static void test_what_is_built_in_is_left_out(void **state)
{
	char path[256];

	PUT("a.ko", "depends=ext4,crc-x");
	snprintf(path, sizeof(path), "%s/modules.builtin", base);
	assert_int_equal(file_write_atomic(path, "kernel/fs/ext4/ext4.ko\nkernel/crc-x.ko\n", 39, 0644, &err), 0);
	assert_int_equal(load("a", "ext4"), 0);
	assert_int_equal(list.count, 1);
}

static void test_compressed_modules_are_unpacked(void **state)
{
	char command[256];

	PUT("a.ko", "depends=");
	PUT("b.ko", "depends=a");
	snprintf(command, sizeof(command), "xz %s/kernel/sub/a.ko && gzip %s/kernel/sub/b.ko", base, base);
	assert_int_equal(system(command), 0);
	assert_int_equal(load("b", NULL), 0);
	assert_int_equal(list.count, 2);
	assert_memory_equal(list.at[0].data, ELFMAG, 4);
}

static void test_missing_module_is_named_unless_optional(void **state)
{
	PUT("a.ko", "depends=gone");
	assert_int_equal(load("?nothing", NULL), 0);
	assert_int_equal(list.count, 0);
	assert_int_equal(load("a", NULL), -ENOENT);
	assert_non_null(strstr(err.msg, "no module gone"));
}

static void test_circles_and_damage_are_found(void **state)
{
	PUT("a.ko", "depends=b");
	PUT("b.ko", "depends=a");
	PUT("c.ko", "name=c");
	assert_int_equal(load("a", NULL), -ELOOP);
	assert_int_equal(load("c", NULL), -EBADMSG);
	assert_int_equal(load("/../../etc", NULL), -ENOENT);
}

static void test_cut_files_have_no_information(void **state)
{
	char elf[1024];
	size_t len = make_elf("depends=x", 10, elf), cursor = 0;

	assert_string_equal(module_info(elf, len, "depends", &cursor), "x");
	assert_null(module_info(elf, len, "depends", &cursor));
	for (size_t n = 0; n + 20 < len; n++) {
		cursor = 0;
		assert_null(module_info(elf, n, "depends", &cursor));
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_needed_modules_come_first_and_once),
		T(test_what_is_built_in_is_left_out),
		T(test_compressed_modules_are_unpacked),
		T(test_missing_module_is_named_unless_optional),
		T(test_circles_and_damage_are_found),
		T(test_cut_files_have_no_information),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
