/* SPDX-License-Identifier: Apache-2.0 */
/* What layers mean together: each test tells layers as tars, and all files of the disk that they become. */
#include "oci/image.h"
#include "os/err.h"
#include "os/file.h"
#include "oci/disk.h"
#include "tests/unit/disk_view.h"
#include "tests/unit/image_maker.h"

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

#define LAYERS_MAX 3

typedef struct maker_entry entries[16];

static char base[64];
static struct err err;

static int setup(void **state)
{
	(void)snprintf(base, sizeof(base), "/tmp/roux-test-layers-XXXXXX");
	assert_non_null(mkdtemp(base));
	assert_int_equal(setenv("ROUX_CACHE", base, 1), 0);
	err = (struct err){ 0 };
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(file_remove_tree(AT_FDCWD, base), 0);
	return 0;
}

/* The data of each file are where it is said that they are. */
static int check_file(void *ctx, const char *path, uint64_t at, uint64_t size)
{
	const struct disk_view *view = ctx;
	const struct erofs_node *node = disk_view_find(view, path + 1);

	assert_int_equal(path[0], '/');
	assert_non_null(node);
	assert_int_equal(node->size, size);
	assert_ptr_equal(view->bytes + at, disk_view_data(view, node));
	return 0;
}

/* The list of files that the layers become, which the caller frees; NULL with @err. */
static char *merge(const entries *layers, size_t count)
{
	struct maker_blob blob[LAYERS_MAX];
	struct disk_view view = { 0 };
	struct oci_image *image;
	char path[100], *const *parts, *list = NULL;
	size_t nparts;

	assert_true(count <= LAYERS_MAX);
	for (size_t i = 0; i < count; i++)
		blob[i] = maker_layer(layers[i], MAKER_NONE);
	(void)snprintf(path, sizeof(path), "%s/image", base);
	maker_layout(path, blob, count, NULL, NULL);
	for (size_t i = 0; i < count; i++)
		maker_free(&blob[i]);
	assert_int_equal(oci_image_open(path, &image, &err), 0);
	if (oci_image_disk(image, NULL, &parts, &nparts, &err) == 0) {
		disk_view_open(&view, parts, nparts);
		list = disk_view_list(&view);
		assert_int_equal(disk_each_file(parts[0], check_file, &view, &err), 0);
		disk_view_close(&view);
	}
	oci_image_close(image);
	assert_int_equal(file_remove_tree(AT_FDCWD, path), 0);
	return list;
}

static void expect_list(const entries *layers, size_t count, const char *expected)
{
	char *list = merge(layers, count);

	if (!list)
		fail_msg("%s", err.msg);
	assert_string_equal(list, expected);
	free(list);
}

#define EXPECT(layers, text) expect_list(layers, sizeof(layers) / sizeof((layers)[0]), text)

static void expect_refusal(const entries *layers, size_t count, const char *word)
{
	char *list = merge(layers, count);

	assert_null(list);
	assert_int_equal(err.code, -EBADMSG);
	if (!strstr(err.msg, word))
		fail_msg("'%s' does not say '%s'", err.msg, word);
}

#define REFUSE(layers, word) expect_refusal(layers, sizeof(layers) / sizeof((layers)[0]), word)

/* Entries of a layer. */
#define DIR(name, mode, uid) { name, 'd', NULL, mode, uid, uid, NULL }
#define FILE_(name, content) { name, 'f', content, 0644, 0, 0, NULL }
#define LINK(name, target) { name, 'l', target, 0777, 0, 0, NULL }
#define HARD(name, target) { name, 'h', target, 0644, 0, 0, NULL }
#define HIDE(name) { name, 'f', "", 0644, 0, 0, NULL }

static void test_later_layers_win(void **state)
{
	static const entries layers[] = {
		{ FILE_("a", "1"), FILE_("b", "1"), FILE_("c", "1") },
		{ FILE_("b", "2"), FILE_("c", "2") },
		{ FILE_("c", "3") },
	};

	EXPECT(layers, "f 644 0:0 a = 1\n" "f 644 0:0 b = 2\n" "f 644 0:0 c = 3\n");
}

static void test_whiteouts_hide_only_what_is_below(void **state)
{
	static const entries layers[] = {
		{ FILE_("a", "1"), FILE_("d/x", "1"), FILE_("d/y", "1"), FILE_("e/f/g", "1") },
		{ HIDE(".wh.a"), HIDE("d/.wh.x"), HIDE(".wh.e"), HIDE(".wh.never") },
		{ FILE_("a", "3"), FILE_("e/h", "3") },
	};

	EXPECT(layers, "f 644 0:0 a = 3\n" "d 755 0:0 d\n" "f 644 0:0 d/y = 1\n" "d 755 0:0 e\n" "f 644 0:0 e/h = 3\n");
}

static void test_a_whiteout_and_a_file_of_one_name_make_a_new_file(void **state)
{
	static const entries layers[] = {
		{ FILE_("a", "1"), FILE_("d/x", "1"), FILE_("e/x", "1"), FILE_("f/x", "1"), FILE_("g/x", "1") },
		{ FILE_("a", "2"), HIDE(".wh.a"),
		  DIR("d/", 0700, 5), FILE_("d/y", "2"), HIDE(".wh.d"),	/* a folder, then its whiteout */
		  HIDE(".wh.e"), DIR("e/", 0700, 6), FILE_("e/y", "2"),	/* the other way round */
		  HIDE(".wh.f"), FILE_("f/y", "2"),	/* no folder beside the file's name */
		  FILE_("g/y", "2"), HIDE(".wh.g") },
	};

	EXPECT(layers, "f 644 0:0 a = 2\n" "d 700 5:5 d\n" "f 644 0:0 d/y = 2\n" "d 700 6:6 e\n" "f 644 0:0 e/y = 2\n"
		       "d 755 0:0 f\n" "f 644 0:0 f/y = 2\n" "d 755 0:0 g\n" "f 644 0:0 g/y = 2\n");
}

static void test_a_hidden_link_is_not_followed(void **state)
{
	static const entries layers[] = {
		{ DIR("real/", 0755, 0), FILE_("real/x", "1"), LINK("l", "real"), LINK("m", "real") },
		{ HIDE(".wh.l"), FILE_("l/y", "2"), FILE_("m/y", "2"), HIDE(".wh.m") },
	};

	EXPECT(layers, "d 755 0:0 l\n" "f 644 0:0 l/y = 2\n" "d 755 0:0 m\n" "f 644 0:0 m/y = 2\n"
		       "d 755 0:0 real\n" "f 644 0:0 real/x = 1\n");
}

static void test_opaque_folders_hide_what_is_below_and_only_that(void **state)
{
	static const entries layers[] = {
		{ DIR("d/", 0750, 7), FILE_("d/x", "1"), FILE_("d/sub/x", "1"), FILE_("e/x", "1") },
		{ FILE_("d/y", "2"), HIDE("d/.wh..wh..opq"), FILE_("d/z", "2"), DIR("e/", 0755, 0), HIDE("e/.wh..wh..opq") },
		{ FILE_("d/x", "3") },
	};

	EXPECT(layers, "d 750 7:7 d\n" "f 644 0:0 d/x = 3\n" "f 644 0:0 d/y = 2\n" "f 644 0:0 d/z = 2\n" "d 755 0:0 e\n");
}

static void test_an_opaque_root_starts_anew(void **state)
{
	static const entries layers[] = { { FILE_("a", "1") }, { HIDE(".wh..wh..opq"), FILE_("b", "2") } };

	EXPECT(layers, "f 644 0:0 b = 2\n");
}

static void test_files_become_folders_and_folders_files(void **state)
{
	static const entries layers[] = {
		{ FILE_("a", "1"), FILE_("d/x", "1"), LINK("l", "d") },
		{ DIR("a/", 0711, 1), FILE_("a/x", "2"), FILE_("d", "2"), DIR("l/", 0700, 2) },
		{ FILE_("a", "3"), DIR("d/", 0700, 3), LINK("l", "a") },
	};

	EXPECT(layers, "f 644 0:0 a = 3\n" "d 700 3:3 d\n" "l l -> a\n");
}

static void test_folders_are_described_by_the_last_layer_that_does(void **state)
{
	static const entries layers[] = {
		{ { "d/", 'd', NULL, 01777, 1, 2, "user.note=below" }, FILE_("d/x", "1"), DIR("e/", 0700, 9) },
		{ { "d/", 'd', NULL, 0555, 3, 4, "user.other=above" }, FILE_("e/y", "2") },
	};

	EXPECT(layers, "d 555 3:4 d {user.other=above}\n" "f 644 0:0 d/x = 1\n" "d 700 9:9 e\n" "f 644 0:0 e/y = 2\n");
}

static void test_paths_go_through_links_of_lower_layers(void **state)
{
	static const entries layers[] = {
		{ DIR("usr/lib/", 0755, 0), LINK("lib", "usr/lib"), LINK("up", "../../usr"), LINK("abs", "/usr") },
		{ FILE_("lib/a", "2"), FILE_("up/b", "2"), FILE_("abs/lib/c", "2"), HIDE("lib/.wh.gone") },
	};

	EXPECT(layers, "l abs -> /usr\n" "l lib -> usr/lib\n" "l up -> ../../usr\n" "d 755 0:0 usr\n"
		       "f 644 0:0 usr/b = 2\n" "d 755 0:0 usr/lib\n" "f 644 0:0 usr/lib/a = 2\n"
		       "f 644 0:0 usr/lib/c = 2\n");
}

static void test_what_cannot_be_a_folder_is_refused(void **state)
{
	static const entries below[] = { { FILE_("a", "1") }, { FILE_("a/x", "2") } };
	static const entries beside[] = { { FILE_("a", "1"), FILE_("a/x", "1") } };
	static const entries loop[] = { { LINK("a", "b"), LINK("b", "a"), FILE_("a/x", "1") } };
	static const entries loop_below[] = { { LINK("a", "b"), LINK("b", "a") }, { FILE_("a/x", "2") } };
	static const entries dangling[] = { { LINK("a", "nowhere") }, { FILE_("a/x", "2") } };

	REFUSE(below, "no folder");
	REFUSE(beside, "no folder");
	REFUSE(loop, "loop");
	REFUSE(loop_below, "no folder");
	REFUSE(dangling, "no folder");
}

static void test_links_that_make_a_path_endless_are_refused(void **state)
{
	static char target[4000], path[3900];
	const entries layers[] = { { LINK("a", target), LINK("b", target), FILE_(path, "1") } };

	memset(target, '/', sizeof(target) - 1);
	memcpy(target, "b", 1);
	memset(path, '/', sizeof(path) - 1);
	for (size_t i = 0; i + 2 < sizeof(path); i += 2)
		path[i] = 'x';
	memcpy(path, "a/", 2);
	REFUSE(layers, "too long");
}

static void test_hard_links_are_one_file_in_and_across_layers(void **state)
{
	static const entries layers[] = {
		{ { "a", 'f', "1", 04755, 5, 6, "user.note=hi" }, HARD("b", "a"), HARD("d/c", "./a"), FILE_("n", "1") },
		{ HARD("e", "d/c"), FILE_("b", "2"), HARD("f", "b"), HARD("g", "n") },
		{ HIDE(".wh.a") },
	};

	EXPECT(layers, "f 644 0:0 b *2 = 2\n" "d 755 0:0 d\n" "f 4755 5:6 d/c *2 {user.note=hi} = 1\n"
		       "f 4755 5:6 e *2 {user.note=hi} = 1\n" "f 644 0:0 f *2 = 2\n" "f 644 0:0 g *2 = 1\n"
		       "f 644 0:0 n *2 = 1\n");
}

static void test_links_and_devices_have_names_too(void **state)
{
	static const entries layers[] = {
		{ LINK("l", "target"), HARD("m", "l"), { "c", 'c', "5:1", 0600, 0, 5, NULL }, HARD("d", "c") },
	};

	EXPECT(layers, "c 600 0:5 5:1 c *2\n" "c 600 0:5 5:1 d *2\n" "l l *2 -> target\n" "l m *2 -> target\n");
}

static void test_a_hard_link_may_take_the_place_of_its_own_file(void **state)
{
	static const entries same[] = { { FILE_("a", "1"), HARD("a", "a") } };
	static const entries other[] = { { FILE_("a", "1"), HARD("b", "a"), HARD("a", "b"), FILE_("b", "new") } };
	static const entries below[] = { { FILE_("a", "1") }, { HARD("a", "a") } };

	EXPECT(same, "f 644 0:0 a = 1\n");
	EXPECT(other, "f 644 0:0 a = 1\n" "f 644 0:0 b = new\n");
	EXPECT(below, "f 644 0:0 a = 1\n");
}

static void test_hard_links_to_what_is_not_there_are_refused(void **state)
{
	static const entries nowhere[] = { { HARD("a", "b") } };
	static const entries hidden[] = { { FILE_("b", "1") }, { HIDE(".wh.b"), HARD("a", "b") } };
	static const entries folder[] = { { DIR("b/", 0755, 0), HARD("a", "b") } };
	static const entries folder_below[] = { { DIR("b/", 0755, 0) }, { HARD("a", "b") } };

	REFUSE(nowhere, "hard link");
	REFUSE(hidden, "hard link");
	REFUSE(folder, "hard link");
	REFUSE(folder_below, "hard link");
}

static void test_devices_and_pipes(void **state)
{
	static const entries layers[] = { {
		{ "big", 'b', "259:300000", 0660, 0, 6, NULL }, { "null", 'c', "1:3", 0666, 0, 0, NULL },
		{ "pipe", 'p', NULL, 0600, 1, 1, NULL },
	} };
	static const entries impossible[] = { { { "x", 'c', "4096:0", 0666, 0, 0, NULL } } };

	EXPECT(layers, "b 660 0:6 259:300000 big\n" "c 666 0:0 1:3 null\n" "p 600 1:1 pipe\n");
	REFUSE(impossible, "device");
}

static void test_attributes_that_are_not_the_images_to_set_are_dropped(void **state)
{
	static const entries layers[] = { {
		{ "a", 'f', "1", 0644, 0, 0, "trusted.overlay.opaque=y" },
		{ "b", 'f', "1", 0644, 0, 0, "trusted.roux.link=etc/shadow" },
		{ "c", 'f', "1", 0644, 0, 0, "user.overlay.opaque=y" },
		{ "d", 'f', "1", 0644, 0, 0, "user.roux.stat=0:0:0:0:0" },
		{ "e", 'f', "1", 0644, 0, 0, "security.selinux=label" },
		{ "f", 'f', "1", 0644, 0, 0, "security.capability=cap" },
		{ "g", 'f', "1", 0644, 0, 0, "user.mine=kept" },
	} };

	EXPECT(layers, "f 644 0:0 a = 1\n" "f 644 0:0 b = 1\n" "f 644 0:0 c = 1\n" "f 644 0:0 d = 1\n"
		       "f 644 0:0 e = 1\n" "f 644 0:0 f {security.capability=cap} = 1\n"
		       "f 644 0:0 g {user.mine=kept} = 1\n");
}

static void test_the_last_of_several_entries_of_one_name_counts(void **state)
{
	static const entries layers[] = { {
		FILE_("a", "1"), FILE_("a", "2"), DIR("d/", 0700, 1), FILE_("d/x", "1"), DIR("d/", 0750, 2),
		FILE_("e/x", "1"), FILE_("e", "2"), LINK("l", "a"), FILE_("l", "3"),
	} };

	EXPECT(layers, "f 644 0:0 a = 2\n" "d 750 2:2 d\n" "f 644 0:0 d/x = 1\n" "f 644 0:0 e = 2\n" "f 644 0:0 l = 3\n");
}

static void test_empty_layers_and_no_layers(void **state)
{
	static const entries layers[] = { { { NULL } }, { { NULL } } };

	EXPECT(layers, "");
	expect_list(NULL, 0, "");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_later_layers_win),
		T(test_whiteouts_hide_only_what_is_below),
		T(test_a_whiteout_and_a_file_of_one_name_make_a_new_file),
		T(test_a_hidden_link_is_not_followed),
		T(test_opaque_folders_hide_what_is_below_and_only_that),
		T(test_an_opaque_root_starts_anew),
		T(test_files_become_folders_and_folders_files),
		T(test_folders_are_described_by_the_last_layer_that_does),
		T(test_paths_go_through_links_of_lower_layers),
		T(test_what_cannot_be_a_folder_is_refused),
		T(test_links_that_make_a_path_endless_are_refused),
		T(test_hard_links_are_one_file_in_and_across_layers),
		T(test_links_and_devices_have_names_too),
		T(test_a_hard_link_may_take_the_place_of_its_own_file),
		T(test_hard_links_to_what_is_not_there_are_refused),
		T(test_devices_and_pipes),
		T(test_attributes_that_are_not_the_images_to_set_are_dropped),
		T(test_the_last_of_several_entries_of_one_name_counts),
		T(test_empty_layers_and_no_layers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
