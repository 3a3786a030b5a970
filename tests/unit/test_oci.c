/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/image.h"
#include "os/err.h"
#include "os/file.h"
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
#include <sys/xattr.h>
#include <unistd.h>
#include <cmocka.h>

static char base[64];	/* of one test; also what hostile layers must not touch */
static char img[128];
static struct err err;
static struct oci_image *image;

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
	oci_image_close(image);
	assert_int_equal(file_remove_tree(AT_FDCWD, base), 0);
	return 0;
}

/* Builds a layout of up to 3 layers, opens and unpacks it; returns the result. */
static int unpack(const struct maker_entry *a, const struct maker_entry *b,
		  const struct maker_faults *faults, const char **ret_root)
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
	return r < 0 ? r : oci_image_rootfs(image, NULL, ret_root, &err);
}

static void expect(const char *root, const char *name, const char *content)
{
	char path[PATH_MAX], *data;
	size_t len;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	if (!content) {
		struct stat st;

		assert_int_equal(lstat(path, &st), -1);
		return;
	}
	assert_int_equal(file_read_all(path, 1 << 20, &data, &len, NULL), 0);
	assert_string_equal(data, content);
	free(data);
}

/* Nothing unpacked is left behind, and nothing outside was made. */
static void expect_nothing_left(void)
{
	char command[600];

	snprintf(command, sizeof(command), "test -z \"$(find %s -path %s -prune -o "
		 "\\( -name '*.new' -o -name rootfs -o -name 'escaped*' \\) -print)\" && "
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
	const char *root;

	assert_int_equal(unpack(lower, upper, NULL, &root), 0);
	expect(root, "etc/kept", "kept");
	expect(root, "etc/gone", NULL);
	expect(root, "dir/sub/file", NULL);
	expect(root, "dir/other", NULL);
	expect(root, "dir/new", "upper");
	expect(root, "dir/sub/new", "upper");
	expect(root, "bin/prog", "new");
	expect(root, "usr/lib/x.so", "through a link");
	expect(root, "swap/inner", "dir now");
	expect(root, "back", "same layer");
	expect(root, "etc/.wh.gone", NULL);
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
	char path[PATH_MAX], target[64] = "";
	const char *root;
	struct stat st, st2;

	assert_int_equal(unpack(files, NULL, NULL, &root), 0);
	snprintf(path, sizeof(path), "%s/f", root);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mtime, 1000000000);
	assert_int_equal(st.st_nlink, 2);
	if (geteuid() == 0) {
		assert_int_equal(st.st_uid, 12);
		assert_int_equal(st.st_gid, 34);
		assert_int_equal(st.st_mode & 07777, 04750);
	}
	assert_int_equal(getxattr(path, "user.note", target, sizeof(target)), 2);
	snprintf(path, sizeof(path), "%s/hard", root);
	assert_int_equal(stat(path, &st2), 0);
	assert_int_equal(st.st_ino, st2.st_ino);
	snprintf(path, sizeof(path), "%s/abs", root);
	assert_int_equal(readlink(path, target, sizeof(target)), 11);
	snprintf(path, sizeof(path), "%s/null", root);
	assert_int_equal(lstat(path, &st), 0);
	if (geteuid() == 0) {
		assert_true(S_ISCHR(st.st_mode));
		assert_int_equal(st.st_rdev, 0x103);
	}
	snprintf(path, sizeof(path), "%s/spoof", root);
	assert_int_equal(getxattr(path, OCI_STAT_XATTR, target, sizeof(target)), -1);
	expect(root, "\xc3\xa9t\xc3\xa9", "name of bytes");
}

static void test_without_rights_owners_go_to_an_attribute(void **state)
{
	static const struct maker_entry files[] = {
		{ "d/", 'd', NULL, 0555, 7, 8, NULL },
		{ "d/f", 'f', "data", 04750, 12, 34, NULL },
		{ "d/plain", 'f', "data", 0644, 0, 0, NULL },
		{ "null", 'c', NULL, 0666, 0, 5, NULL },
		{ 0 },
	};
	const char *root;
	int status;
	pid_t pid;

	if (geteuid() != 0)
		return;	/* the other tests have covered it */
	assert_int_equal(chmod(base, 0777), 0);
	pid = fork();
	if (pid == 0) {
		char path[PATH_MAX], text[64];
		ssize_t n;
		int r;

		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(2);
		r = unpack(files, NULL, NULL, &root);
		if (r < 0)
			_exit(r == -ENOTSUP ? 77 : 3);
		snprintf(path, sizeof(path), "%s/d/f", root);
		n = getxattr(path, OCI_STAT_XATTR, text, sizeof(text) - 1);
		text[n < 0 ? 0 : n] = '\0';
		if (strcmp(text, "12:34:104750:0:0") != 0)
			_exit(4);
		snprintf(path, sizeof(path), "%s/null", root);
		n = getxattr(path, OCI_STAT_XATTR, text, sizeof(text) - 1);
		text[n < 0 ? 0 : n] = '\0';
		if (strcmp(text, "0:5:20666:1:3") != 0)
			_exit(5);
		snprintf(path, sizeof(path), "%s/d/plain", root);
		if (getxattr(path, OCI_STAT_XATTR, text, sizeof(text)) >= 0)
			_exit(6);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void expect_hostile(const struct maker_entry *a, const struct maker_entry *b, int code)
{
	const char *root;

	assert_int_equal(unpack(a, b, NULL, &root), code);
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

	expect_hostile(files, NULL, -ENOENT);	/* there is no /etc inside */
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
	const char *root;

	assert_int_equal(unpack(files, NULL, NULL, &root), 0);
	expect(root, "tmp/escaped", "inside");
	expect(root, "tmp/escaped2", "inside");
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
	const char *root;

	assert_int_equal(unpack(files, NULL, NULL, &root), 0);
	expect(root, "x", "file");
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
	const char *root;

	assert_int_equal(unpack(down, up, NULL, &root), 0);
	expect(root, "img", NULL);
	assert_int_equal(access(img, F_OK), 0);
}

static void expect_damage(const struct maker_faults *faults, int code, const char *word)
{
	const char *root;

	assert_int_equal(unpack(lower, NULL, faults, &root), code);
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
	const char *root;

	maker_layout(img, &layer, 1, NULL, NULL);
	maker_free(&layer);
	assert_int_equal(oci_image_open(img, &image, &err), 0);
	assert_int_equal(oci_image_rootfs(image, &few, &root, &err), -EFBIG);
	assert_non_null(strstr(err.msg, "more files"));
	assert_int_equal(oci_image_rootfs(image, &small, &root, &err), -EFBIG);
	expect_nothing_left();
	assert_int_equal(oci_image_rootfs(image, NULL, &root, &err), 0);
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

static void test_second_use_finds_the_unpacked_image(void **state)
{
	struct oci_image *again;
	const char *root, *root2;
	char marker[PATH_MAX];

	assert_int_equal(unpack(lower, NULL, NULL, &root), 0);
	snprintf(marker, sizeof(marker), "%s/marker", root);
	maker_write(marker, "m", 1);
	assert_int_equal(oci_image_open(img, &again, &err), 0);
	assert_int_equal(oci_image_rootfs(again, NULL, &root2, &err), 0);
	assert_string_equal(root, root2);
	expect(root2, "marker", "m");
	oci_image_close(again);
}

static void test_processes_unpack_once_together(void **state)
{
	struct maker_blob layer = maker_layer(lower, MAKER_GZIP);
	int bad = 0, status;

	maker_layout(img, &layer, 1, NULL, NULL);
	maker_free(&layer);
	for (int i = 0; i < 8; i++)
		if (fork() == 0) {
			const char *root;

			_exit(oci_image_open(img, &image, &err) < 0 ||
			      oci_image_rootfs(image, NULL, &root, &err) < 0);
		}
	while (wait(&status) > 0)
		bad |= status;
	assert_int_equal(bad, 0);
}

static void test_leftovers_of_a_crash_are_cleared(void **state)
{
	struct maker_blob layer = maker_layer(lower, MAKER_GZIP);
	char path[512];
	const char *root;

	maker_layout(img, &layer, 1, NULL, NULL);
	maker_free(&layer);
	assert_int_equal(oci_image_open(img, &image, &err), 0);
	snprintf(path, sizeof(path), "%s/images/v1/%s.new/rootfs/half", base, oci_image_digest(image) + 7);
	assert_int_equal(file_mkdirs(path, 0, &err), -EACCES * (geteuid() != 0));
	assert_int_equal(oci_image_rootfs(image, NULL, &root, &err), 0);
	expect(root, "half", NULL);
}

static void test_layout_in_a_tar_is_the_same_image(void **state)
{
	char tar[128];
	const char *root, *root2;
	struct oci_image *other;

	for (enum maker_filter f = MAKER_NONE; f <= MAKER_GZIP; f++) {
		snprintf(tar, sizeof(tar), "%s/img.tar%d", base, (int)f);
		if (f == MAKER_NONE)
			assert_int_equal(unpack(lower, NULL, NULL, &root), 0);
		maker_tar_of(img, tar, f);
		assert_int_equal(oci_image_open(tar, &other, &err), 0);
		assert_string_equal(oci_image_digest(image), oci_image_digest(other));
		assert_int_equal(oci_image_rootfs(other, NULL, &root2, &err), 0);
		assert_string_equal(root, root2);
		oci_image_close(other);
	}
}

static void test_images_are_chosen_by_name(void **state)
{
	char named[256];
	const char *root;

	assert_int_equal(unpack(lower, NULL, NULL, &root), 0);
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
	const char *root;

	snprintf(tar, sizeof(tar), "%s/d.tar", base);
	maker_docker_archive(tar, layers, 2, 1);
	maker_free(&layers[0]);
	maker_free(&layers[1]);
	snprintf(named, sizeof(named), "%s:test:v1", tar);
	assert_int_equal(oci_image_open(named, &image, &err), 0);
	assert_string_equal(oci_image_config(image)->user, "app");
	assert_int_equal(oci_image_rootfs(image, NULL, &root, &err), 0);
	expect(root, "etc/kept", "kept");
}

static void test_plain_folder_is_its_own_root(void **state)
{
	const char *root;

	assert_int_equal(mkdir(img, 0755), 0);
	assert_int_equal(oci_image_open(img, &image, &err), 0);
	assert_string_equal(oci_image_digest(image), "");
	assert_null(oci_image_config(image)->entrypoint[0]);
	assert_int_equal(oci_image_rootfs(image, NULL, &root, &err), 0);
	assert_string_equal(root, img);
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
		T(test_without_rights_owners_go_to_an_attribute),
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
		T(test_second_use_finds_the_unpacked_image),
		T(test_processes_unpack_once_together),
		T(test_leftovers_of_a_crash_are_cleared),
		T(test_layout_in_a_tar_is_the_same_image),
		T(test_images_are_chosen_by_name),
		T(test_docker_archive_with_linked_layers),
		T(test_plain_folder_is_its_own_root),
		T(test_what_is_no_image_is_said_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
