/* SPDX-License-Identifier: Apache-2.0 */
#include "os/err.h"
#include "os/file.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char base[64];
static struct store *store;
static struct store_lease *lease;
static struct err err;

static int setup(void **state)
{
	snprintf(base, sizeof(base), "/tmp/roux-test-store-XXXXXX");
	assert_non_null(mkdtemp(base));
	err = (struct err){ 0 };
	assert_int_equal(store_open(base, &store, &err), 0);
	assert_int_equal(store_lease_begin(store, &lease, &err), 0);
	return 0;
}

static int teardown(void **state)
{
	store_lease_end(lease);
	store_close(store);
	assert_int_equal(file_remove_tree(AT_FDCWD, base), 0);
	return 0;
}

/* An object "digest digest ..." leads to those. */
static int children(struct store *s, const char *digest, store_add_fn add, void *ctx, struct err *e)
{
	char *text, *save = NULL;
	size_t len;
	int r = store_read(s, digest, 1 << 20, &text, &len, e);

	if (r < 0)
		return r;
	for (char *word = strtok_r(text, " ", &save); r == 0 && word; word = strtok_r(NULL, " ", &save))
		if (store_digest_ok(word))
			r = add(ctx, word);
	free(text);
	return r;
}

static const char *put(const char *text)
{
	static char digest[8][STORE_DIGEST_SIZE];
	static unsigned next;
	char *ret = digest[next++ % 8];

	assert_int_equal(store_put(lease, text, strlen(text), ret, &err), 0);
	return ret;
}

static bool has(const char *digest)
{
	uint64_t size;

	return store_size(store, digest, &size, &err) == 0;
}

static struct store_collected collect(unsigned age)
{
	struct store_collected c;

	assert_int_equal(store_collect(store, children, false, age, NULL, NULL, &c, &err), 0);
	return c;
}

static void new_lease(void)
{
	store_lease_end(lease);
	assert_int_equal(store_lease_begin(store, &lease, &err), 0);
}

static void set_ref(const char *name, const char *digest)
{
	struct store_ref ref = { .type = "text/plain", .size = 1 };

	snprintf(ref.name, sizeof(ref.name), "%s", name);
	memcpy(ref.digest, digest, sizeof(ref.digest));
	assert_int_equal(store_ref_set(store, "images", &ref, &err), 0);
}

static void test_what_is_put_is_read_again(void **state)
{
	const char *digest = put("hello");
	char *text;
	size_t len;

	assert_string_equal(digest, "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
	assert_int_equal(store_read(store, digest, 100, &text, &len, &err), 0);
	assert_int_equal(len, 5);
	assert_string_equal(text, "hello");
	free(text);
	assert_int_equal(store_read(store, digest, 4, &text, &len, &err), -EFBIG);
	assert_string_equal(put("hello"), digest);	/* the same again is no trouble */
	assert_int_equal(store_verify(store, digest, false, &err), 0);
}

static void test_damage_is_seen_and_removed(void **state)
{
	const char *digest = put("some text");
	char path[PATH_MAX], *text;
	size_t len;

	assert_int_equal(store_object_path(store, digest, path, &err), 0);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(truncate(path, 4), 0);
	assert_int_equal(store_read(store, digest, 100, &text, &len, &err), -EBADMSG);
	assert_int_equal(store_verify(store, digest, false, &err), -EBADMSG);
	assert_true(has(digest));
	assert_int_equal(store_verify(store, digest, true, &err), -EBADMSG);
	assert_false(has(digest));
	assert_string_equal(put("some text"), digest);
	assert_int_equal(store_verify(store, digest, false, &err), 0);
}

static void test_collection_keeps_what_names_and_leases_lead_to(void **state)
{
	char tree[256], top[256];
	const char *leaf = put("leaf"), *other = put("other"), *loose = put("loose");

	snprintf(tree, sizeof(tree), "%s %s", leaf, "sha256:none");
	snprintf(top, sizeof(top), "x %s", put(tree));
	set_ref("named", put(top));
	new_lease();
	assert_int_equal(store_lease_add(lease, other, &err), 0);
	assert_int_equal(collect(0).objects, 1);
	assert_true(has(leaf) && has(other) && !has(loose));
	new_lease();
	assert_int_equal(collect(0).objects, 1);
	assert_false(has(other));
	assert_int_equal(store_ref_remove(store, "images", "named", &err), 0);
	assert_int_equal(store_ref_remove(store, "images", "named", &err), -ENOENT);
	assert_int_equal(collect(0).objects, 3);
}

static void test_a_lease_ends_with_its_process(void **state)
{
	const char *digest = put("kept by the child");
	int pipe_fd[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(pipe_fd), 0);
	pid = fork();
	if (pid == 0) {
		struct store_lease *own;

		if (store_lease_begin(store, &own, NULL) < 0 || store_lease_add(own, digest, NULL) < 0 || write(pipe_fd[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(pipe_fd[0], &c, 1), 1);
	/* The child has a copy of this lease's descriptor: only its own counts from here. */
	new_lease();
	assert_int_equal(collect(0).objects, 0);
	assert_true(has(digest));
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(collect(0).objects, 1);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

static void test_a_damaged_object_stops_the_collection_before_anything_is_lost(void **state)
{
	char tree[256], path[PATH_MAX];
	const char *leaf = put("leaf"), *top;
	struct store_collected c;

	snprintf(tree, sizeof(tree), "%s", leaf);
	top = put(tree);
	set_ref("named", top);
	new_lease();
	assert_int_equal(store_object_path(store, top, path, &err), 0);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(truncate(path, 3), 0);
	assert_int_equal(store_collect(store, children, false, 0, NULL, NULL, &c, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "roux store verify"));
	assert_true(has(leaf));
}

static const char text[] = "0123456789abcdef";

static void digest_of_text(char ret[STORE_DIGEST_SIZE])
{
	store_digest(text, 16, ret);
}

static void test_an_unfinished_object_goes_on_where_it_was(void **state)
{
	char digest[STORE_DIGEST_SIZE];
	struct store_writer w, second;

	digest_of_text(digest);
	assert_int_equal(store_write_resume(lease, digest, 16, &w, &err), 0);
	assert_int_equal(w.size, 0);
	assert_int_equal(store_write(&w, text, 10, &err), 0);
	assert_int_equal(store_write_resume(lease, digest, 16, &second, &err), -EWOULDBLOCK);
	store_write_pause(&w);
	assert_false(has(digest));
	assert_int_equal(store_write_resume(lease, digest, 16, &w, &err), 0);
	assert_int_equal(w.size, 10);
	assert_int_equal(store_write(&w, text + 10, 6, &err), 0);
	assert_int_equal(store_write(&w, "x", 1, &err), -EFBIG);
	assert_int_equal(store_write_commit(&w, NULL, &err), 0);
	assert_true(has(digest));
	assert_int_equal(store_write_resume(lease, digest, 16, &w, &err), -EEXIST);
}

static void test_wrong_bytes_never_become_an_object(void **state)
{
	char digest[STORE_DIGEST_SIZE];
	struct store_writer w;

	digest_of_text(digest);
	assert_int_equal(store_write_resume(lease, digest, 16, &w, &err), 0);
	assert_int_equal(store_write(&w, "0123456789abcdeF", 16, &err), 0);
	assert_int_equal(store_write_commit(&w, NULL, &err), -EBADMSG);
	assert_false(has(digest));
	assert_int_equal(store_write_resume(lease, digest, 16, &w, &err), 0);
	assert_int_equal(w.size, 0);	/* they are not resumed either */
	store_write_abort(&w);
}

static void test_unfinished_objects_get_old(void **state)
{
	char digest[STORE_DIGEST_SIZE];
	struct store_writer w;

	digest_of_text(digest);
	assert_int_equal(store_write_resume(lease, digest, 16, &w, &err), 0);
	assert_int_equal(store_write(&w, text, 10, &err), 0);
	assert_int_equal(collect(0).partial, 0);	/* it is being written */
	store_write_pause(&w);
	assert_int_equal(collect(60).partial, 0);
	assert_int_equal(collect(0).partial, 1);
}

static void test_a_quota_counts_what_is_there_and_what_is_promised(void **state)
{
	struct store_lease *second;
	struct store_writer w;
	char digest[STORE_DIGEST_SIZE], block[4096] = "";

	assert_int_equal(store_quota_set(store, 10000, &err), 0);
	(void)put("12345");
	assert_int_equal(store_lease_begin(store, &second, &err), 0);
	assert_int_equal(store_lease_reserve(second, 6000, &err), 0);
	assert_int_equal(store_lease_reserve(lease, 5000, &err), -EDQUOT);
	assert_non_null(strstr(err.msg, "quota"));
	store_lease_end(second);
	assert_int_equal(store_lease_reserve(lease, 4096, &err), 0);
	store_digest(block, sizeof(block), digest);
	assert_int_equal(store_write_resume(lease, digest, sizeof(block), &w, &err), 0);
	assert_int_equal(store_write(&w, block, sizeof(block), &err), 0);
	assert_int_equal(store_write_commit(&w, NULL, &err), 0);
	/* What was promised is there now: it must not count twice. */
	assert_int_equal(store_lease_reserve(lease, 5800, &err), 0);
	assert_int_equal(store_lease_reserve(lease, 5800, &err), -EDQUOT);
}

static void test_references_of_every_name(void **state)
{
	const char *digest = put("x");
	struct store_ref ref, *refs;
	char longest[STORE_NAME_MAX];
	size_t n;

	memset(longest, 'n', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	set_ref("../../etc/passwd", digest);
	set_ref(longest, digest);
	set_ref("b", digest);
	set_ref("b", put("y"));
	assert_int_equal(store_ref_list(store, "images", &refs, &n, &err), 0);
	assert_int_equal(n, 3);
	assert_string_equal(refs[0].name, "../../etc/passwd");
	free(refs);
	assert_int_equal(store_ref_get(store, "images", longest, &ref, &err), 0);
	assert_string_equal(ref.digest, digest);
	assert_int_equal(store_ref_get(store, "images", "nothing", &ref, &err), -ENOENT);
	ref = (struct store_ref){ .name = "a\nb", .type = "t" };
	memcpy(ref.digest, digest, sizeof(ref.digest));
	assert_int_equal(store_ref_set(store, "images", &ref, &err), -EINVAL);
}

static void test_damaged_references_are_refused(void **state)
{
	static const char *const wrong[] = {
		"", "roux reference 1\n", "roux reference 2\nname a\ndigest sha256:x\ntype t\nsize 1\n",
		"roux reference 1\nname a\ndigest sha256:x\ntype t\nsize 1\n",
		"roux reference 1\nname \ndigest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\ntype t\nsize 1\n",
		"roux reference 1\nname a\ndigest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\ntype t\nsize -1\n",
		"roux reference 1\nname a\ndigest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\ntype t\nsize 1",
		"roux reference 1\nname a\ndigest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\ntype t\nsize 1\nmore\n",
	};
	struct store_ref ref;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(store_ref_parse(wrong[i], strlen(wrong[i]), &ref, &err), -EBADMSG);
}

static void test_a_store_of_another_format_is_refused(void **state)
{
	struct store *other;
	char path[128];

	snprintf(path, sizeof(path), "%s/format", base);
	assert_int_equal(file_write_atomic(path, "2\n", 2, 0644, &err), 0);
	assert_int_equal(store_open(base, &other, &err), -ENOTSUP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_put_is_read_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_is_seen_and_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_collection_keeps_what_names_and_leases_lead_to, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_lease_ends_with_its_process, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_damaged_object_stops_the_collection_before_anything_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_unfinished_object_goes_on_where_it_was, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_bytes_never_become_an_object, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unfinished_objects_get_old, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_quota_counts_what_is_there_and_what_is_promised, setup, teardown),
		cmocka_unit_test_setup_teardown(test_references_of_every_name, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_references_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_store_of_another_format_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
