/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/image.h"
#include "os/err.h"
#include "os/file.h"
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char base[64];	/* of one test; also what hostile layers must not touch */
static char img[128];
static struct err err;
static struct oci_image *image;
static struct disk_view view;

static int setup(void **state)
{
	snprintf(base, sizeof(base), "/tmp/roux-test-oci-XXXXXX");
	assert_non_null(mkdtemp(base));
	snprintf(img, sizeof(img), "%s/img", base);
	setenv("ROUX_CACHE", base, 1);
	err = (struct err){ 0 };
	image = NULL;
	return 0;
}

static int teardown(void **state)
{
	disk_view_close(&view);
	oci_image_close(image);
	assert_int_equal(file_remove_tree(AT_FDCWD, base), 0);
	return 0;
}

/* Makes the image's disk and opens @view of it; returns the result. */
static int make_disk(const struct oci_limits *limits)
{
	char *const *paths;
	size_t count;
	int r = oci_image_disk(image, limits, &paths, &count, &err);

	if (r == 0)
		disk_view_open(&view, paths, count);
	return r;
}

/* The same for the image of up to 2 layers, in a layout that is written before. */
static int make(const struct maker_entry *a, const struct maker_entry *b, const struct maker_faults *faults)
{
	const struct maker_entry *all[] = { a, b };
	struct maker_blob layers[2] = { 0 };
	size_t n = 0;
	int r;

	for (; n < 2 && all[n]; n++)
		layers[n] = maker_layer(all[n], n ? MAKER_ZSTD : MAKER_GZIP);
	maker_layout(img, layers, n, NULL, faults);
	while (n)
		maker_free(&layers[--n]);
	r = oci_image_open(img, &image, &err);
	return r < 0 ? r : make_disk(NULL);
}

/* File @name has @content, or does not exist when that is NULL. */
static void expect(const char *name, const char *content)
{
	const struct erofs_node *node = disk_view_find(&view, name);

	if (!content) {
		assert_null(node);
		return;
	}
	assert_non_null(node);
	assert_int_equal(node->size, strlen(content));
	assert_memory_equal(disk_view_data(&view, node), content, strlen(content));
}

/* No part of a file is left behind, and no file of the image. */
static void expect_nothing_left(void)
{
	char command[600];

	snprintf(command, sizeof(command), "test -z \"$(find %s -path %s -prune -o "
		 "\\( -name '*.new*' -o -path '*/images/*.erofs' -o -name 'escaped*' \\) -print)\" && "
		 "test ! -e /tmp/escaped", base, img);
	assert_int_equal(system(command), 0);
}

static const struct maker_entry lower[] = {
	{ "./", 'd', NULL, 0755, 0, 0, NULL },
	{ "etc/", 'd', NULL, 0755, 0, 0, NULL },
	{ "etc/kept", 'f', "kept", 0644, 0, 0, NULL },
	{ "etc/gone", 'f', "gone", 0644, 0, 0, NULL },
	{ "dir/sub/file", 'f', "lower", 0644, 0, 0, NULL },
	{ "dir/other", 'f', "lower", 0644, 0, 0, NULL },
	{ "usr/lib/", 'd', NULL, 0755, 0, 0, NULL },
	{ "lib", 'l', "usr/lib", 0777, 0, 0, NULL },
	{ "bin/prog", 'f', "old", 0755, 0, 0, NULL },
	{ "swap", 'f', "file", 0644, 0, 0, NULL },
	{ 0 },
};

static void test_layers_merge_with_whiteouts(void **state)
{
	static const struct maker_entry upper[] = {
		{ "etc/.wh.gone", 'f', "", 0644, 0, 0, NULL },
		{ "etc/.wh.never-there", 'f', "", 0644, 0, 0, NULL },
		{ "dir/new", 'f', "upper", 0644, 0, 0, NULL },
		{ "dir/.wh..wh..opq", 'f', "", 0644, 0, 0, NULL },	/* after a file: still lower only */
		{ "dir/sub/new", 'f', "upper", 0644, 0, 0, NULL },
		{ "bin/prog", 'f', "new", 0755, 0, 0, NULL },
		{ "lib/x.so", 'f', "through a link", 0644, 0, 0, NULL },
		{ "swap/", 'd', NULL, 0755, 0, 0, NULL },
		{ "swap/inner", 'f', "dir now", 0644, 0, 0, NULL },
		{ "back", 'f', "same layer", 0644, 0, 0, NULL },
		{ ".wh.back", 'f', "", 0644, 0, 0, NULL },
		{ 0 },
	};

	assert_int_equal(make(lower, upper, NULL), 0);
	expect("etc/kept", "kept");
	expect("etc/gone", NULL);
	expect("dir/sub/file", NULL);
	expect("dir/other", NULL);
	expect("dir/new", "upper");
	expect("dir/sub/new", "upper");
	expect("bin/prog", "new");
	expect("usr/lib/x.so", "through a link");
	expect("swap/inner", "dir now");
	expect("back", "same layer");
	expect("etc/.wh.gone", NULL);
}

static void test_metadata_links_and_devices_are_kept(void **state)
{
	static const struct maker_entry files[] = {
		{ "f", 'f', "data", 04750, 12, 34, "user.note=hi" },
		{ "hard", 'h', "f", 0, 0, 0, NULL },
		{ "abs", 'l', "/etc/passwd", 0777, 0, 0, NULL },
		{ "null", 'c', NULL, 0666, 0, 0, NULL },
		{ "pipe", 'p', NULL, 0600, 0, 0, NULL },
		{ "spoof", 'f', "x", 0644, 0, 0, "user.roux.stat=0:0:0:0:0" },
		{ "\xc3\xa9t\xc3\xa9", 'f', "name of bytes", 0644, 0, 0, NULL },
		{ 0 },
	};
	const struct erofs_node *node;

	assert_int_equal(make(files, NULL, NULL), 0);
	node = disk_view_find(&view, "f");
	assert_int_equal(node->mtime, 1000000000);
	assert_int_equal(node->nlink, 2);
	assert_int_equal(node->uid, 12);
	assert_int_equal(node->gid, 34);
	assert_int_equal(node->mode, S_IFREG | 04750);
	assert_int_equal(erofs_get_xattr(node, "user.note")->value_len, 2);
	assert_ptr_equal(disk_view_find(&view, "hard"), node);
	assert_string_equal(disk_view_find(&view, "abs")->target, "/etc/passwd");
	node = disk_view_find(&view, "null");
	assert_int_equal(node->mode, S_IFCHR | 0666);
	assert_int_equal(node->rdev, 0x103);
	assert_int_equal(disk_view_find(&view, "pipe")->mode, S_IFIFO | 0600);
	assert_null(disk_view_find(&view, "spoof")->xattrs);
	expect("\xc3\xa9t\xc3\xa9", "name of bytes");
}

static void expect_hostile(const struct maker_entry *a, const struct maker_entry *b, int code)
{

	assert_int_equal(make(a, b, NULL), code);
	assert_int_not_equal(strlen(err.msg), 0);
	expect_nothing_left();
}

static void test_dotdot_in_a_name_is_refused(void **state)
{
	static const struct maker_entry files[] = { { "../escaped", 'f', "x", 0, 0, 0, NULL }, { 0 } };

	expect_hostile(files, NULL, -EBADMSG);
}

static void test_dotdot_inside_a_name_is_refused(void **state)
{
	static const struct maker_entry files[] = {
		{ "a/", 'd', NULL, 0, 0, 0, NULL },
		{ "a/../../escaped", 'f', "x", 0, 0, 0, NULL }, { 0 },
	};

	expect_hostile(files, NULL, -EBADMSG);
}

static void test_hard_link_out_of_the_root_is_refused(void **state)
{
	static const struct maker_entry files[] = { { "x", 'h', "../../../../etc/passwd", 0, 0, 0, NULL },
						    { 0 } };

	expect_hostile(files, NULL, -EBADMSG);
}

static void test_hard_link_through_a_symlink_stays_inside(void **state)
{
	static const struct maker_entry files[] = {
		{ "out", 'l', "/etc", 0777, 0, 0, NULL },
		{ "x", 'h', "out/passwd", 0, 0, 0, NULL }, { 0 },
	};

	expect_hostile(files, NULL, -EBADMSG);	/* there is no /etc inside */
}

static void test_symlinks_out_of_the_root_lead_to_the_root(void **state)
{
	static const struct maker_entry files[] = {
		{ "tmp/", 'd', NULL, 0755, 0, 0, NULL },
		{ "abs", 'l', "/tmp", 0777, 0, 0, NULL },
		{ "abs/escaped", 'f', "inside", 0644, 0, 0, NULL },
		{ "rel", 'l', "../../../../../../../../tmp", 0777, 0, 0, NULL },
		{ "rel/escaped2", 'f', "inside", 0644, 0, 0, NULL },
		{ 0 },
	};

	assert_int_equal(make(files, NULL, NULL), 0);
	expect("tmp/escaped", "inside");
	expect("tmp/escaped2", "inside");
	assert_int_equal(access("/tmp/escaped", F_OK), -1);
	assert_int_equal(access("/tmp/escaped2", F_OK), -1);
}

static void test_file_over_a_symlink_replaces_the_link(void **state)
{
	static const struct maker_entry files[] = {
		{ "x", 'l', "/tmp/escaped", 0777, 0, 0, NULL },
		{ "x", 'f', "file", 0644, 0, 0, NULL },
		{ 0 },
	};

	assert_int_equal(make(files, NULL, NULL), 0);
	expect("x", "file");
	assert_int_equal(access("/tmp/escaped", F_OK), -1);
}

static void test_whiteouts_cannot_reach_outside(void **state)
{
	static const struct maker_entry up[] = { { "../../.wh.img", 'f', "", 0, 0, 0, NULL }, { 0 } };

	expect_hostile(lower, up, -EBADMSG);
	assert_int_equal(access(img, F_OK), 0);
}

static void test_whiteout_of_dotdot_is_refused(void **state)
{
	static const struct maker_entry up[] = { { "etc/.wh...", 'f', "", 0, 0, 0, NULL }, { 0 } };

	expect_hostile(lower, up, -EBADMSG);
}

static void test_whiteout_through_a_symlink_stays_inside(void **state)
{
	static const struct maker_entry down[] = {
		{ "out", 'l', "/", 0777, 0, 0, NULL },
		{ "img", 'f', "victim", 0644, 0, 0, NULL }, { 0 },
	};
	static const struct maker_entry up[] = { { "out/.wh.img", 'f', "", 0, 0, 0, NULL }, { 0 } };

	assert_int_equal(make(down, up, NULL), 0);
	expect("img", NULL);
	assert_int_equal(access(img, F_OK), 0);
}

static void expect_damage(const struct maker_faults *faults, int code, const char *word)
{

	assert_int_equal(make(lower, NULL, faults), code);
	if (!strstr(err.msg, word))
		fail_msg("'%s' does not say '%s'", err.msg, word);
	expect_nothing_left();
}

static void test_other_architecture_is_named(void **state)
{
	struct maker_faults f = { .arch = "arm64" };

	expect_damage(&f, -ENOEXEC, "linux/arm64");
}

static void test_wrong_layer_digest_is_found(void **state)
{
	struct maker_faults f = { .wrong_layer_digest = 1 };

	expect_damage(&f, -EBADMSG, "digest");
}

static void test_wrong_uncompressed_digest_is_found(void **state)
{
	struct maker_faults f = { .wrong_diff_id = 1 };

	expect_damage(&f, -EBADMSG, "uncompressed layer");
}

static void test_missing_layer_is_named(void **state)
{
	struct maker_faults f = { .missing_layer = 1 };

	expect_damage(&f, -EBADMSG, "is missing");
}

static void test_truncated_gzip_is_found(void **state)
{
	struct maker_faults f = { .cut_layer = 1 };

	expect_damage(&f, -EBADMSG, "damaged");
}

static void test_corrupt_gzip_is_found(void **state)
{
	struct maker_faults f = { .flip_layer = 1 };

	expect_damage(&f, -EBADMSG, "damaged");
}

static void test_limits_stop_large_images(void **state)
{
	struct oci_limits few = { .bytes = 1 << 20, .entries = 3 }, small = { .bytes = 4096, .entries = 99 };
	struct maker_blob layer = maker_layer(lower, MAKER_GZIP);

	maker_layout(img, &layer, 1, NULL, NULL);
	maker_free(&layer);
	assert_int_equal(oci_image_open(img, &image, &err), 0);
	assert_int_equal(make_disk(&few), -EFBIG);
	assert_non_null(strstr(err.msg, "more files"));
	assert_int_equal(make_disk(&small), -EFBIG);
	expect_nothing_left();
	assert_int_equal(make_disk(NULL), 0);
}

static void test_configuration_is_read(void **state)
{
	struct maker_blob layer = maker_layer(lower, MAKER_NONE);
	const struct oci_config *c;

	maker_layout(img, &layer, 1, "{\"Entrypoint\":[\"/bin/prog\",\"-x\"],\"Cmd\":null,\"Env\":[\"A=b\"],"
		     "\"User\":\"app:users\",\"WorkingDir\":\"/srv\",\"StopSignal\":\"SIGINT\","
		     "\"ExposedPorts\":{\"80/tcp\":{}},\"Volumes\":{\"/data\":{}},\"Labels\":{\"k\":\"v\"}}", NULL);
	maker_free(&layer);
	assert_int_equal(oci_image_open(img, &image, &err), 0);
	c = oci_image_config(image);
	assert_string_equal(c->entrypoint[1], "-x");
	assert_null(c->entrypoint[2]);
	assert_null(c->cmd[0]);
	assert_string_equal(c->env[0], "A=b");
	assert_string_equal(c->user, "app:users");
	assert_string_equal(c->working_dir, "/srv");
	assert_string_equal(c->stop_signal, "SIGINT");
	assert_string_equal(c->exposed_ports[0], "80/tcp");
	assert_string_equal(c->volumes[0], "/data");
	assert_string_equal(c->labels[0], "k=v");
}

static void test_stop_signals_have_numbers(void **state)
{
	static const struct { const char *name; int number; } cases[] = {
		{ "", 15 }, { "SIGINT", 2 }, { "QUIT", 3 }, { "9", 9 }, { "SIGRTMIN+3", 37 }, { "SIGNO", -EINVAL },
		{ "0", -EINVAL }, { "65", -EINVAL }, { "9x", -EINVAL }, { "SIGRTMIN+99", -EINVAL },
	};
	char name[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct oci_config c = { .stop_signal = strcpy(name, cases[i].name) };

		assert_int_equal(oci_stop_signal(&c), cases[i].number);
	}
}

static void test_second_use_reads_no_layer(void **state)
{
	char command[200];

	assert_int_equal(make(lower, NULL, NULL), 0);
	oci_image_close(image);
	assert_int_equal(oci_image_open(img, &image, &err), 0);
	snprintf(command, sizeof(command), "find %s/blobs -type f ! -exec grep -q ^{ {} \\; -exec truncate -s 0 {} +",
		 img);
	assert_int_equal(system(command), 0);
	assert_int_equal(make_disk(NULL), 0);
	expect("etc/kept", "kept");
}

static void test_processes_make_a_disk_together(void **state)
{
	struct maker_blob layer = maker_layer(lower, MAKER_GZIP);
	int bad = 0, status;

	maker_layout(img, &layer, 1, NULL, NULL);
	maker_free(&layer);
	for (int i = 0; i < 8; i++)
		if (fork() == 0)
			_exit(oci_image_open(img, &image, &err) < 0 || make_disk(NULL) < 0);
	while (wait(&status) > 0)
		bad |= status;
	assert_int_equal(bad, 0);
}

/* What a process leaves that is killed while it writes, or whose machine loses power. */
static void test_leftovers_of_a_crash_are_replaced(void **state)
{
	char *const *paths, path[PATH_MAX];
	size_t count;

	assert_int_equal(make(lower, NULL, NULL), 0);
	assert_int_equal(oci_image_disk(image, NULL, &paths, &count, &err), 0);
	assert_int_equal(count, 2);
	for (size_t i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s.new", paths[i]);
		maker_write(path, "half", 4);
		maker_write(paths[i], "other", 5);	/* no longer as it was sealed */
	}
	oci_image_close(image);
	assert_int_equal(oci_image_open(img, &image, &err), 0);
	assert_int_equal(make_disk(NULL), 0);
	expect("etc/kept", "kept");
	assert_int_equal(access(path, F_OK), -1);
}

static void test_layout_in_a_tar_is_the_same_image(void **state)
{
	char *const *paths, *const *paths2, tar[128];
	struct oci_image *other;
	size_t count, count2;

	assert_int_equal(make(lower, NULL, NULL), 0);
	assert_int_equal(oci_image_disk(image, NULL, &paths, &count, &err), 0);
	for (enum maker_filter f = MAKER_NONE; f <= MAKER_GZIP; f++) {
		snprintf(tar, sizeof(tar), "%s/img.tar%d", base, (int)f);
		maker_tar_of(img, tar, f);
		assert_int_equal(oci_image_open(tar, &other, &err), 0);
		assert_string_equal(oci_image_digest(image), oci_image_digest(other));
		assert_int_equal(oci_image_disk(other, NULL, &paths2, &count2, &err), 0);
		assert_int_equal(count, count2);
		for (size_t i = 0; i < count; i++)
			assert_string_equal(paths[i], paths2[i]);
		oci_image_close(other);
	}
}

static void test_images_are_chosen_by_name(void **state)
{
	char named[256];

	assert_int_equal(make(lower, NULL, NULL), 0);
	oci_image_close(image);
	snprintf(named, sizeof(named), "%s:latest", img);
	assert_int_equal(oci_image_open(named, &image, &err), 0);
	oci_image_close(image);
	image = NULL;
	snprintf(named, sizeof(named), "%s:other", img);
	assert_int_equal(oci_image_open(named, &image, &err), -ENOENT);
}

static void test_docker_archive_with_linked_layers(void **state)
{
	struct maker_blob layers[2] = { maker_layer(lower, MAKER_NONE), maker_layer(lower, MAKER_NONE) };
	char tar[128], named[256];

	snprintf(tar, sizeof(tar), "%s/d.tar", base);
	maker_docker_archive(tar, layers, 2, 1);
	maker_free(&layers[0]);
	maker_free(&layers[1]);
	snprintf(named, sizeof(named), "%s:test:v1", tar);
	assert_int_equal(oci_image_open(named, &image, &err), 0);
	assert_string_equal(oci_image_config(image)->user, "app");
	assert_int_equal(make_disk(NULL), 0);
	expect("etc/kept", "kept");
}

static void test_plain_folder_is_its_own_root(void **state)
{

	assert_int_equal(mkdir(img, 0755), 0);
	assert_int_equal(oci_image_open(img, &image, &err), 0);
	assert_string_equal(oci_image_digest(image), "");
	assert_null(oci_image_config(image)->entrypoint[0]);
	assert_string_equal(oci_image_folder(image), img);
	assert_int_equal(make_disk(NULL), -EINVAL);
}

static void test_what_is_no_image_is_said_so(void **state)
{
	assert_int_equal(oci_image_open("/no/such/image", &image, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no image at"));
	maker_write(img, "not a tar at all, but long enough to be looked at closely", 57);
	assert_int_equal(oci_image_open(img, &image, &err), -EBADMSG);
	maker_write(img, "", 0);
	assert_int_equal(oci_image_open(img, &image, &err), -EBADMSG);
	assert_int_equal(oci_image_open("/dev/null", &image, &err), -EINVAL);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_layers_merge_with_whiteouts),
		T(test_metadata_links_and_devices_are_kept),
		T(test_dotdot_in_a_name_is_refused),
		T(test_dotdot_inside_a_name_is_refused),
		T(test_hard_link_out_of_the_root_is_refused),
		T(test_hard_link_through_a_symlink_stays_inside),
		T(test_symlinks_out_of_the_root_lead_to_the_root),
		T(test_file_over_a_symlink_replaces_the_link),
		T(test_whiteouts_cannot_reach_outside),
		T(test_whiteout_of_dotdot_is_refused),
		T(test_whiteout_through_a_symlink_stays_inside),
		T(test_other_architecture_is_named),
		T(test_wrong_layer_digest_is_found),
		T(test_wrong_uncompressed_digest_is_found),
		T(test_missing_layer_is_named),
		T(test_truncated_gzip_is_found),
		T(test_corrupt_gzip_is_found),
		T(test_limits_stop_large_images),
		T(test_configuration_is_read),
		T(test_stop_signals_have_numbers),
		T(test_second_use_reads_no_layer),
		T(test_processes_make_a_disk_together),
		T(test_leftovers_of_a_crash_are_replaced),
		T(test_layout_in_a_tar_is_the_same_image),
		T(test_images_are_chosen_by_name),
		T(test_docker_archive_with_linked_layers),
		T(test_plain_folder_is_its_own_root),
		T(test_what_is_no_image_is_said_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
