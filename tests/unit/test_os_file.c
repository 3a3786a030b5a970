/* SPDX-License-Identifier: Apache-2.0 */
#include "os/err.h"
#include "os/file.h"
#include "os/process.h"

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

static char base[64], path[256];
static struct err err;

static int setup(void **state)
{
	snprintf(base, sizeof(base), "/tmp/roux-test-file-XXXXXX");
	assert_non_null(mkdtemp(base));
	snprintf(path, sizeof(path), "%s/file", base);
	err = (struct err){ 0 };
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(file_remove_tree(AT_FDCWD, base), 0);
	assert_int_equal(access(base, F_OK), -1);
	return 0;
}

static void expect_content(const char *content)
{
	char *data;
	size_t len;

	assert_int_equal(file_read_all(path, 100, &data, &len, &err), 0);
	assert_int_equal(len, strlen(content));
	assert_string_equal(data, content);
	free(data);
}

static void expect_entries(const char *command_result)
{
	char command[128], out[64] = "";
	FILE *f;

	snprintf(command, sizeof(command), "ls -A %s | tr '\\n' ' '", base);
	f = popen(command, "r");
	assert_non_null(f);
	assert_true(fgets(out, sizeof(out), f) || out[0] == '\0');
	pclose(f);
	assert_string_equal(out, command_result);
}

static void test_write_replaces_the_whole_file(void **state)
{
	struct stat st;

	assert_int_equal(file_write_atomic(path, "first, longer", 13, 0600, &err), 0);
	assert_int_equal(file_write_atomic(path, "second", 6, 0640, &err), 0);
	expect_content("second");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	expect_entries("file ");
}

static void test_aborted_write_leaves_the_old_file(void **state)
{
	struct file_new file;

	assert_int_equal(file_write_atomic(path, "old", 3, 0600, &err), 0);
	assert_int_equal(file_new_begin(&file, path, 0600, &err), 0);
	assert_int_equal(file_write_all(file.fd, "new", 3), 0);
	file_new_abort(&file);
	expect_content("old");
	expect_entries("file ");
}

static void test_write_killed_halfway_leaves_the_old_file(void **state)
{
	struct file_new file;
	int status;

	assert_int_equal(file_write_atomic(path, "old", 3, 0600, &err), 0);
	if (fork() == 0) {
		(void)file_new_begin(&file, path, 0600, NULL);
		(void)file_write_all(file.fd, "ne", 2);
		kill(getpid(), SIGKILL);
	}
	assert_true(wait(&status) > 0);
	expect_content("old");
	expect_entries("file ");
}

static void test_scratch_files_have_no_name(void **state)
{
	int fd = file_scratch(path, &err);

	assert_true(fd >= 0);
	assert_int_equal(file_write_all(fd, "new", 3), 0);
	expect_entries("");
	close(fd);
}

static void test_write_into_a_missing_folder_says_so(void **state)
{
	snprintf(path, sizeof(path), "%s/no/file", base);
	assert_int_equal(file_write_atomic(path, "x", 1, 0600, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "cannot write"));
}

static void test_reading_stops_at_the_limit(void **state)
{
	char *data;
	size_t len;

	assert_int_equal(file_write_atomic(path, "12345", 5, 0600, &err), 0);
	assert_int_equal(file_read_all(path, 4, &data, &len, &err), -EFBIG);
	assert_int_equal(file_read_all("/dev/zero", 1000, &data, &len, &err), -EFBIG);
	assert_int_equal(file_read_all("/no/such", 4, &data, &len, &err), -ENOENT);
	assert_int_equal(file_read_all("/proc/self/stat", 100000, &data, &len, &err), 0);
	assert_true(len > 10);
	free(data);
}

static void test_trees_are_removed_with_unreadable_folders(void **state)
{
	char command[400];

	snprintf(command, sizeof(command), "cd %s && mkdir -p t/a/b t/c && touch t/a/b/f && ln -s / t/c/root && "
		 "ln -s .. t/up && chmod 0 t/a/b t/a", base);
	assert_int_equal(system(command), 0);
	snprintf(path, sizeof(path), "%s/t", base);
	assert_int_equal(file_remove_tree(AT_FDCWD, path), 0);
	assert_int_equal(file_remove_tree(AT_FDCWD, path), 0);
	assert_int_equal(access("/etc/passwd", F_OK), 0);
	expect_entries("");
}

static void test_folders_are_made_with_parents(void **state)
{
	snprintf(path, sizeof(path), "%s/a/b//c/", base);
	assert_int_equal(file_mkdirs(path, 0755, &err), 0);
	assert_int_equal(file_mkdirs(path, 0755, &err), 0);
	snprintf(path, sizeof(path), "%s/f", base);
	assert_int_equal(file_write_atomic(path, "", 0, 0600, &err), 0);
	assert_int_equal(file_mkdirs(path, 0755, &err), -ENOTDIR);
}

static void test_cache_follows_the_environment(void **state)
{
	char got[PATH_MAX], want[256];

	setenv("ROUX_CACHE", base, 1);
	assert_int_equal(file_cache_dir("x/y", got, &err), 0);
	snprintf(want, sizeof(want), "%s/x/y", base);
	assert_string_equal(got, want);
	unsetenv("ROUX_CACHE");
	setenv("XDG_CACHE_HOME", base, 1);
	assert_int_equal(file_cache_dir("z", got, &err), 0);
	snprintf(want, sizeof(want), "%s/roux/z", base);
	assert_string_equal(got, want);
	setenv("XDG_CACHE_HOME", "relative", 1);
	setenv("HOME", base, 1);
	assert_int_equal(file_cache_dir("z", got, &err), 0);
	snprintf(want, sizeof(want), "%s/.cache/roux/z", base);
	assert_string_equal(got, want);
}

static void test_lock_keeps_others_out_until_closed(void **state)
{
	int first = file_lock(path, false, &err), status;

	assert_true(first >= 0);
	assert_int_equal(file_lock(path, true, &err), -EWOULDBLOCK);
	if (fork() == 0)
		_exit(file_lock(path, true, NULL) == -EWOULDBLOCK ? 0 : 1);
	assert_true(wait(&status) > 0);
	assert_int_equal(status, 0);
	close(first);
	first = file_lock(path, true, &err);
	assert_true(first >= 0);
	close(first);
}

static void test_program_runs_with_output_and_status(void **state)
{
	const char *const argv[] = { "sh", "-c", "pwd; echo $VAR; echo bad >&2; cat; exit 3", NULL };
	const char *const env[] = { "VAR=value", NULL };
	struct process_result res;
	char want[128];

	assert_int_equal(process_run(argv, base, env, 1000, NULL, &res, &err), 0);
	snprintf(want, sizeof(want), "%s\nvalue\n", base);
	assert_string_equal(res.out, want);
	assert_string_equal(res.errors, "bad\n");
	assert_int_equal(res.status, 3);
	free(res.out);
}

static void test_program_that_prints_too_much_is_stopped(void **state)
{
	const char *const argv[] = { "yes", NULL };
	struct process_result res;

	assert_int_equal(process_run(argv, NULL, NULL, 100000, NULL, &res, &err), -EFBIG);
}

static void test_cancelled_program_is_killed(void **state)
{
	const char *const argv[] = { "sleep", "100", NULL };
	const volatile int cancel = 1;
	struct process_result res;

	assert_int_equal(process_run(argv, NULL, NULL, 100, &cancel, &res, &err), -EINTR);
}

static void test_end_of_long_complaints_is_kept(void **state)
{
	const char *const argv[] = { "sh", "-c", "seq 5000 >&2; printf last >&2; kill -9 $$", NULL };
	struct process_result res;

	assert_int_equal(process_run(argv, NULL, NULL, 100, NULL, &res, &err), 0);
	assert_string_equal(res.errors + strlen(res.errors) - 9, "5000\nlast");
	assert_int_equal(res.status, 128 + 9);
	free(res.out);
}

static void test_missing_program_is_reported(void **state)
{
	const char *const argv[] = { "no-such-program", NULL };
	struct process_result res;

	assert_int_equal(process_run(argv, NULL, NULL, 100, NULL, &res, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no-such-program"));
}

static void test_a_write_breaks_the_seal_of_a_file(void **state)
{
	struct stat st;
	int fd;

	assert_int_equal(file_write_sealed(path, "derived", 7, 0644, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true(file_is_sealed(&st));
	assert_int_equal(truncate(path, 3), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_false(file_is_sealed(&st));
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(file_seal(fd), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(file_is_sealed(&st));
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);	/* the size stays */
	assert_int_equal(fstat(fd, &st), 0);
	assert_false(file_is_sealed(&st));
	close(fd);
	assert_int_equal(file_write_atomic(path, "plain", 5, 0644, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_false(file_is_sealed(&st));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_write_replaces_the_whole_file),
		T(test_a_write_breaks_the_seal_of_a_file),
		T(test_aborted_write_leaves_the_old_file),
		T(test_write_killed_halfway_leaves_the_old_file),
		T(test_scratch_files_have_no_name),
		T(test_write_into_a_missing_folder_says_so),
		T(test_reading_stops_at_the_limit),
		T(test_trees_are_removed_with_unreadable_folders),
		T(test_folders_are_made_with_parents),
		T(test_cache_follows_the_environment),
		T(test_lock_keeps_others_out_until_closed),
		T(test_program_runs_with_output_and_status),
		T(test_program_that_prints_too_much_is_stopped),
		T(test_cancelled_program_is_killed),
		T(test_end_of_long_complaints_is_kept),
		T(test_missing_program_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
