/* SPDX-License-Identifier: Apache-2.0 */
/* The text form of machine specs, and the part of TOML it is written in. */
#include "machine/spec.h"
#include "machine/toml.h"
#include "os/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct machine_spec spec;
static struct err err;

static int setup(void **state)
{
	machine_spec_init(&spec);
	err = (struct err){ 0 };
	return 0;
}

static int teardown(void **state)
{
	machine_spec_finish(&spec);
	return 0;
}

static int read_text(const char *text)
{
	machine_spec_finish(&spec);
	machine_spec_init(&spec);
	return machine_spec_read(&spec, text, strlen(text), &err);
}

static const char full[] =
	"engine = \"dbt\"  # a comment\n"
	"cpus = 4\r\n"
	"memory = 1_073_741_824\n"
	"kernel = \"/boot/vmlinuz\"\n"
	"cmdline = \"quiet a=\\\"b\\\" \\\\ \\u00e9\\t\"\n"
	"initrd = [\"/a\",\"/b\" , ]\n"
	"guest_conf = \"hostname=x\\nroot=y\\n\"\n"
	"vsock = false\n"
	"balloon = true\n"
	"balloon_yield = true\n"
	"merge = true\n"
	"gdb_port = 1234\n"
	"gdb_wait = true\n"
	"\n"
	"[[share]]\n"
	"tag = \"root\"\n"
	"path = \"/srv\"\n"
	"read_only = true\n"
	"cache = \"always\"\n"
	"[[disk]]\n"
	"path = \"/disk.img\"\n"
	"overlay = true\n"
	"layer = \"/layer\"\n"
	"[[net]]\n"
	"kind = \"tap\"\n"
	"name = \"tap0\"\n"
	"mac = \"02:00:5e:10:00:ff\"\n"
	"mtu = 9000\n"
	"send_bytes = 1000\n"
	"[[share]]\n"
	"tag = \"data\"\n"
	"path = \"/data\"\n"
	"cache = \"none\"";

static void check_full(void)
{
	assert_string_equal(spec.engine, "dbt");
	assert_int_equal(spec.cpus, 4);
	assert_int_equal(spec.memory, 1ull << 30);
	assert_string_equal(spec.kernel, "/boot/vmlinuz");
	assert_string_equal(spec.cmdline, "quiet a=\"b\" \\ \xc3\xa9\t");
	assert_int_equal(spec.initrd.n, 2);
	assert_string_equal(spec.initrd.at[1], "/b");
	assert_string_equal(spec.guest_conf, "hostname=x\nroot=y\n");
	assert_false(spec.vsock);
	assert_true(spec.balloon);
	assert_true(spec.balloon_yield);
	assert_true(spec.merge);
	assert_true(spec.gdb && spec.gdb_wait);
	assert_int_equal(spec.gdb_port, 1234);
	assert_int_equal(spec.nshares, 2);
	assert_string_equal(spec.share[0].tag, "root");
	assert_true(spec.share[0].read_only);
	assert_int_equal(spec.share[0].cache, SPEC_CACHE_ALWAYS);
	assert_string_equal(spec.share[1].path, "/data");
	assert_int_equal(spec.share[1].cache, SPEC_CACHE_NONE);
	assert_int_equal(spec.nnets, 1);
	assert_string_equal(spec.net[0].name, "tap0");
	assert_memory_equal(spec.net[0].mac, "\x02\0\x5e\x10\0\xff", 6);
	assert_int_equal(spec.net[0].mtu, 9000);
	assert_int_equal(spec.net[0].send.bytes_per_s, 1000);
	assert_int_equal(spec.ndisks, 1);
	assert_true(spec.disk[0].overlay);
	assert_false(spec.disk[0].read_only);
}

static void test_everything_is_read_and_survives_being_written(void **state)
{
	char *text;

	assert_int_equal(read_text(full), 0);
	check_full();
	assert_int_equal(machine_spec_check(&spec, &err), 0);
	text = machine_spec_text(&spec);
	assert_non_null(text);
	assert_int_equal(read_text(text), 0);
	check_full();
	free(text);
}

static void test_what_is_not_given_has_defaults(void **state)
{
	assert_int_equal(read_text(""), 0);
	assert_int_equal(spec.cpus, 1);
	assert_int_equal(spec.memory, 512u << 20);
	assert_true(spec.vsock);
	assert_false(spec.balloon);
	assert_false(spec.merge);
	assert_false(spec.gdb);
	assert_null(spec.engine);
	assert_int_equal(machine_spec_check(&spec, &err), -EINVAL);
	assert_string_equal(err.msg, "no kernel given");
	assert_int_equal(read_text("kernel = \"k\"\ngdb_wait = true"), 0);
	assert_int_equal(machine_spec_check(&spec, &err), -EINVAL);
	assert_string_equal(err.msg, "waiting for GDB needs a port for it");
}

static void test_half_given_parts_are_written_and_refused_by_the_check(void **state)
{
	char *text;

	assert_int_equal(read_text("kernel = \"k\"\n[[share]]\npath = \"/p\"\n"), 0);
	assert_int_equal(machine_spec_check(&spec, &err), -EINVAL);
	assert_string_equal(err.msg, "shared folder 1 needs a tag and a path");
	text = machine_spec_text(&spec);
	assert_non_null(text);
	assert_int_equal(read_text(text), 0);
	assert_null(spec.share[0].tag);
	free(text);
	assert_int_equal(read_text("kernel = \"k\"\n[[disk]]\n"), 0);
	assert_int_equal(machine_spec_check(&spec, &err), -EINVAL);
}

static void test_a_place_on_a_named_network_is_read_and_survives(void **state)
{
	static const char text[] =
		"kernel = \"k\"\n[[net]]\nkind = \"named\"\nname = \"lab\"\nsocket = \"/run/lab.sock\"\n"
		"token = \"00112233445566778899aabbccddeeff\"\ninternal = true\nguest = [\"10.89.1.2/24\"]\n"
		"gateway = [\"10.89.1.1\"]\ndns = [\"10.89.1.254\"]\nmac = \"02:72:78:59:01:00\"\nmtu = 1500\n";
	char *again;

	assert_int_equal(read_text(text), 0);
	assert_int_equal(machine_spec_check(&spec, &err), 0);
	again = machine_spec_text(&spec);
	assert_int_equal(read_text(again), 0);
	free(again);
	assert_int_equal(spec.net[0].kind, SPEC_NET_NAMED);
	assert_true(spec.net[0].internal);
	assert_string_equal(spec.net[0].socket, "/run/lab.sock");
	assert_string_equal(spec.net[0].token, "00112233445566778899aabbccddeeff");
	spec.net[0].token[3] = 'x';
	assert_int_equal(machine_spec_check(&spec, &err), -EINVAL);
}

static void test_ranges_are_checked(void **state)
{
	static const char *const bad[] = { "cpus = 0", "cpus = 9", "cpus = -1", "cpus = 4294967297", "memory = 0",
					   "memory = 1048576", "memory = 536870913", "memory = -2097152" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(read_text(bad[i]), 0);
		spec.kernel = strdup("k");
		assert_int_equal(machine_spec_check(&spec, NULL), -EINVAL);
	}
}

static void test_errors_name_their_line(void **state)
{
	static const struct {
		const char *text, *says;
	} t[] = {
		{ "cpus = 1\nfoo = 2\n", "line 2: unknown key foo" },
		{ "\n\ncpus = \"1\"", "line 3: cpus has the wrong kind of value" },
		{ "engine = [\"kvm\"]", "line 1: engine has the wrong kind of value" },
		{ "initrd = \"/a\"", "line 1: initrd has the wrong kind of value" },
		{ "initrd = [\"1\",\"2\",\"3\",\"4\",\"5\"]", "line 1: bad value for initrd" },
		{ "initrd = [\"1\" \"2\"]", "line 1: expected ',' or ']' in an array" },
		{ "initrd = [\"1\",\n", "line 1: expected a string or ']' in an array" },
		{ "tag = \"x\"", "line 1: unknown key tag" },
		{ "[[share]]\ncache = \"some\"", "line 2: bad value for cache" },
		{ "[nothing]", "line 1: no table [nothing] here, or too many of them" },
		{ "[[share]", "line 1: expected ']'" },
		{ "cpus 1", "line 1: expected '=' after the key" },
		{ "= 1", "line 1: expected a name" },
		{ "cpus =", "line 1: expected a value" },
		{ "cpus = 1 2", "line 1: expected the end of the line" },
		{ "gdb_port = 65536", "line 1: bad value for gdb_port" },
		{ "gdb_port = -1", "line 1: bad value for gdb_port" },
		{ "vsock = truely", "line 1: expected a value" },
		{ "memory = 99999999999999999999", "line 1: number too large" },
		{ "engine = \"kvm", "line 1: unfinished string" },
		{ "engine = \"\\q\"", "line 1: unknown escape in a string" },
		{ "engine = \"\\u00\"", "line 1: bad \\u escape" },
		{ "engine = \"\\u0000\"", "line 1: escape is no character" },
		{ "engine = \"\\ud800\"", "line 1: escape is no character" },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		assert_int_equal(read_text(t[i].text), -EINVAL);
		assert_string_equal(err.msg, t[i].says);
	}
	assert_int_equal(machine_spec_read(&spec, "engine = \"a\0b\"", 14, &err), -EINVAL);
}

static void test_tables_are_limited(void **state)
{
	char text[16 * (SPEC_SHARES_MAX + 1)] = "";

	for (int i = 0; i < SPEC_SHARES_MAX; i++)
		strcat(text, "[[share]]\n");
	assert_int_equal(read_text(text), 0);
	assert_int_equal(read_text(strcat(text, "[[share]]\n")), -EINVAL);
}

/* Every prefix of a good text ends in 0 or -EINVAL, without a byte read behind it. */
static void test_cut_texts_are_harmless(void **state)
{
	for (size_t n = 0; n <= strlen(full); n++) {
		char *cut = malloc(n ? n : 1);
		int r;

		memcpy(cut, full, n);
		machine_spec_finish(&spec);
		machine_spec_init(&spec);
		r = machine_spec_read(&spec, cut, n, &err);
		assert_true(r == 0 || r == -EINVAL);
		free(cut);
	}
}

static int note_string(void *ctx, const struct toml_value *v, struct err *e)
{
	strcpy(ctx, v->string);
	return 0;
}

static void test_any_string_survives_writing_and_reading(void **state)
{
	char value[256] = "", got[512] = "";
	struct toml_writer w = { 0 };

	for (int c = 1; c < 256; c++)
		value[c - 1] = (char)c;
	toml_put_string(&w, "key", value);
	assert_false(w.failed);
	assert_int_equal(toml_read(w.text, w.len, note_string, got, &err), 0);
	assert_string_equal(got, value);
	free(w.text);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_everything_is_read_and_survives_being_written),
		T(test_what_is_not_given_has_defaults),
		T(test_half_given_parts_are_written_and_refused_by_the_check),
		T(test_a_place_on_a_named_network_is_read_and_survives),
		T(test_ranges_are_checked),
		T(test_errors_name_their_line),
		T(test_tables_are_limited),
		T(test_cut_texts_are_harmless),
		T(test_any_string_survives_writing_and_reading),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
