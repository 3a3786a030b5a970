/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees written as EROFS and read again.  Where Debian's erofs-utils are installed,
 * they look at each image too.
 */
#include "erofs/format.h"
#include "erofs/read.h"
#include "erofs/write.h"
#include "os/err.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static const struct erofs_limits limits = { .entries = 100000, .bytes = 1 << 26 };

static char dir[64], path[96];
static int fd;
static struct erofs_tree tree, again;
static struct err err;
static uint64_t blocks;

static int setup(void **state)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/roux-test-erofs-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/image", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	err = (struct err){ 0 };
	return erofs_tree_init(&tree, &limits, NULL);
}

static int teardown(void **state)
{
	erofs_tree_finish(&tree);
	erofs_tree_finish(&again);
	close(fd);
	return file_remove_tree(AT_FDCWD, dir);
}

static struct erofs_node *add(struct erofs_node *in, const char *name, uint32_t mode)
{
	struct erofs_node *node;

	assert_int_equal(erofs_node_new(&tree, mode, &node, &err), 0);
	assert_int_equal(erofs_link(&tree, in, name, strlen(name), node, &err), 0);
	return node;
}

static struct erofs_node *find(const struct erofs_tree *in, const char *name)
{
	const struct erofs_entry *e = erofs_find(in->root, name, strlen(name));

	assert_non_null(e);
	return e->node;
}

/* What the tools that come with the file system say. */
static void check_with_tools(void)
{
	char command[600];

	(void)snprintf(command, sizeof(command), "! command -v fsck.erofs >/dev/null || { fsck.erofs --extract=%s/out %s && "
		       "dump.erofs -s %s; } >%s/log 2>&1 || { cat %s/log; false; }", dir, path, path, dir, dir);
	assert_int_equal(system(command), 0);
}

static void write_image(const uint32_t *part_blocks, unsigned nparts)
{
	const struct erofs_write_options opt = { .fd = fd, .meta_block = 1, .part_blocks = part_blocks, .nparts = nparts };

	if (erofs_write(&tree, &opt, &blocks, &err) < 0)
		fail_msg("%s", err.msg);
}

/* Reads the disk that @path is, all parts, into @again. */
static void read_image(void)
{
	struct stat st;
	void *bytes;
	int r;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, blocks * EROFS_BLOCK);
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(bytes, MAP_FAILED);
	assert_int_equal(erofs_read_blocks(bytes, (size_t)st.st_size), blocks);
	r = erofs_read(bytes, (size_t)st.st_size, 0, &limits, &again, &err);
	assert_int_equal(munmap(bytes, (size_t)st.st_size), 0);
	if (r < 0)
		fail_msg("%s", err.msg);
}

static void write_and_read(void)
{
	write_image(NULL, 0);
	read_image();
	check_with_tools();
}

static void assert_same(const struct erofs_node *a, const struct erofs_node *b);

static int compare_entry(void *ctx, struct erofs_entry *entry)
{
	const struct erofs_entry *other = erofs_find(ctx, entry->name, entry->name_len);

	assert_non_null(other);
	assert_same(entry->node, other->node);
	return 0;
}

static void assert_same(const struct erofs_node *a, const struct erofs_node *b)
{
	const struct erofs_xattr *x = a->xattrs, *y = b->xattrs;

	assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->uid, b->uid);
	assert_int_equal(a->gid, b->gid);
	assert_int_equal(a->rdev, b->rdev);
	assert_int_equal(a->mtime, b->mtime);
	assert_int_equal(a->mtime_ns, b->mtime_ns);
	assert_int_equal(a->nlink, b->nlink);
	assert_int_equal(a->size, b->size);
	assert_int_equal(!a->target, !b->target);
	if (a->target)
		assert_string_equal(a->target, b->target);
	for (; x && y; x = x->next, y = y->next) {
		assert_int_equal(x->index, y->index);
		assert_int_equal(x->name_len, y->name_len);
		assert_int_equal(x->value_len, y->value_len);
		assert_memory_equal(x->bytes, y->bytes, (size_t)x->name_len + x->value_len);
	}
	assert_null(x);
	assert_null(y);
	assert_int_equal(a->count, b->count);
	assert_int_equal(a->subdirs, b->subdirs);
	(void)erofs_for_each(a, compare_entry, (void *)(uintptr_t)b);
}

static void test_an_empty_tree_is_an_image(void **state)
{
	write_and_read();
	assert_same(tree.root, again.root);
	assert_int_equal(again.root->mode, S_IFDIR | 0755);
}

static void test_all_kinds_of_files_come_back(void **state)
{
	struct erofs_node *n = add(tree.root, "file", S_IFREG | 06755);

	n->uid = UINT32_MAX - 1;
	n->gid = 70000;
	n->mtime = -12345;
	n->mtime_ns = 999999999;
	n = add(tree.root, "link", S_IFLNK | 0777);
	assert_int_equal(erofs_set_target(&tree, n, "../x y", 6, &err), 0);
	n = add(tree.root, "char", S_IFCHR | 0600);
	assert_true(erofs_rdev(0xfff, 0xfffff, &n->rdev));
	n = add(tree.root, "block", S_IFBLK | 0660);
	assert_true(erofs_rdev(259, 300000, &n->rdev));
	n->mtime = INT64_C(1) << 33;
	(void)add(tree.root, "pipe", S_IFIFO | 0644);
	(void)add(tree.root, "socket", S_IFSOCK | 0644);
	n = add(tree.root, "dir", S_IFDIR | 01777);
	(void)add(n, "inner", S_IFDIR | 0700);
	tree.root->mode = S_IFDIR | 0711;
	write_and_read();
	assert_same(tree.root, again.root);
}

static void test_devices_that_cannot_be_are_refused(void **state)
{
	uint32_t rdev;

	assert_false(erofs_rdev(0x1000, 0, &rdev));
	assert_false(erofs_rdev(0, 0x100000, &rdev));
}

static void test_hard_links_stay_one_file(void **state)
{
	struct erofs_node *d = add(tree.root, "d", S_IFDIR | 0755), *n = add(tree.root, "a", S_IFREG | 0644);

	assert_int_equal(erofs_link(&tree, d, "b", 1, n, &err), 0);
	assert_int_equal(erofs_link(&tree, tree.root, "z", 1, n, &err), 0);
	write_and_read();
	assert_same(tree.root, again.root);
	assert_int_equal(find(&again, "a")->nlink, 3);
	assert_ptr_equal(find(&again, "a"), find(&again, "z"));
	assert_ptr_equal(find(&again, "a"), erofs_find(find(&again, "d"), "b", 1)->node);
}

/* Sizes around those of blocks: what is inline, and where folders are cut. */
static void test_folders_of_any_size_come_back(void **state)
{
	static const unsigned counts[] = { 0, 1, 15, 16, 30, 31, 150, 180, 260, 10000 };
	char name[300];

	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct erofs_node *d;

		(void)snprintf(name, sizeof(name), "%u", counts[i]);
		d = add(tree.root, name, S_IFDIR | 0755);
		for (unsigned k = 0; k < counts[i]; k++) {
			/* Short ones and long ones, and those that are in order before "." and "..". */
			(void)snprintf(name, sizeof(name), k % 3 == 0 ? "%u" : k % 3 == 1 ? "-%0100u" : "\xff%u", k);
			(void)add(d, name, S_IFREG | 0644);
		}
	}
	write_and_read();
	assert_same(tree.root, again.root);
}

static void test_names_of_255_bytes_are_kept_and_longer_ones_refused(void **state)
{
	struct erofs_node *n;
	char name[257];

	memset(name, 'n', 256);
	name[256] = '\0';
	assert_int_equal(erofs_node_new(&tree, S_IFREG | 0644, &n, &err), 0);
	assert_int_equal(erofs_link(&tree, tree.root, name, 256, n, &err), -ENAMETOOLONG);
	for (unsigned i = 0; i < 40; i++) {	/* blocks have room for 15 of them */
		name[254] = (char)('A' + i);
		assert_int_equal(erofs_link(&tree, tree.root, name, 255, n, &err), 0);
	}
	write_and_read();
	assert_same(tree.root, again.root);
}

static void test_names_that_are_none_are_refused(void **state)
{
	struct erofs_node *n = add(tree.root, "x", S_IFREG | 0644);

	assert_int_equal(erofs_link(&tree, tree.root, "", 0, n, &err), -EINVAL);
	assert_int_equal(erofs_link(&tree, tree.root, ".", 1, n, &err), -EINVAL);
	assert_int_equal(erofs_link(&tree, tree.root, "..", 2, n, &err), -EINVAL);
	assert_int_equal(erofs_link(&tree, tree.root, "a/b", 3, n, &err), -EINVAL);
	assert_int_equal(erofs_link(&tree, tree.root, "a\0b", 3, n, &err), -EINVAL);
	assert_int_equal(erofs_link(&tree, tree.root, "x", 1, n, &err), -EEXIST);
	assert_int_equal(n->nlink, 1);
}

static void test_links_of_any_length_come_back(void **state)
{
	static const unsigned lengths[] = { 1, 59, 60, 4000, 4031, 4032, 4033, 4095 };
	char target[4096], name[16];

	memset(target, 't', sizeof(target));
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		(void)snprintf(name, sizeof(name), "%u", lengths[i]);
		assert_int_equal(erofs_set_target(&tree, add(tree.root, name, S_IFLNK | 0777), target, lengths[i], &err), 0);
	}
	assert_int_equal(erofs_set_target(&tree, find(&tree, "1"), target, 4096, &err), -EINVAL);
	assert_int_equal(erofs_set_target(&tree, find(&tree, "1"), target, 0, &err), -EINVAL);
	write_and_read();
	assert_same(tree.root, again.root);
}

static void set(struct erofs_node *node, const char *name, const void *value, size_t len)
{
	assert_int_equal(erofs_set_xattr(&tree, node, name, value, len, &err), 0);
}

static void test_attributes_come_back(void **state)
{
	static char value[65535];
	struct erofs_node *n = add(tree.root, "few", S_IFREG | 0644);

	memset(value, 'v', sizeof(value));
	set(n, "user.b", "2", 1);
	set(n, "user.a", "1", 1);
	set(n, "user.a", "one", 3);	/* instead */
	set(n, "user.empty", "", 0);
	set(n, "security.capability", value, 20);
	set(n, "system.posix_acl_access", value, 28);
	set(n, "trusted.x", "y", 1);
	assert_int_equal(erofs_get_xattr(n, "user.a")->value_len, 3);
	assert_null(erofs_get_xattr(n, "user.c"));
	n = add(tree.root, "long", S_IFDIR | 0755);	/* longer than a block: its entries lie outside */
	set(n, "user.long", value, sizeof(value));
	(void)add(n, "inner", S_IFREG | 0644);
	n = add(tree.root, "link", S_IFLNK | 0777);
	assert_int_equal(erofs_set_target(&tree, n, "few", 3, &err), 0);
	set(n, "security.note", value, 4000);
	write_and_read();
	assert_same(tree.root, again.root);
}

static void test_equal_attributes_are_stored_once(void **state)
{
	char name[16], value[1000];

	memset(value, 'v', sizeof(value));
	for (unsigned i = 0; i < 300; i++) {
		struct erofs_node *n;

		(void)snprintf(name, sizeof(name), "%u", i);
		n = add(tree.root, name, S_IFREG | 0644);
		set(n, "user.same", value, sizeof(value));
		set(n, "user.other", name, strlen(name));
	}
	write_and_read();
	assert_same(tree.root, again.root);
	assert_true(blocks * EROFS_BLOCK < 300 * 200);
}

/* An inode can name 255 shared ones: the others stay with it. */
static void test_hundreds_of_attributes_of_one_file(void **state)
{
	struct erofs_node *a = add(tree.root, "a", S_IFREG | 0644), *b = add(tree.root, "b", S_IFREG | 0644);
	char name[24];

	for (unsigned i = 0; i < 300; i++) {
		(void)snprintf(name, sizeof(name), "user.%u", i);
		set(a, name, "same", 4);
		set(b, name, "same", 4);
	}
	write_and_read();
	assert_same(tree.root, again.root);
}

static void test_attributes_that_cannot_be_kept_are_refused(void **state)
{
	static char value[65536];
	char name[300] = "user.";

	memset(name + 5, 'n', 256);
	assert_int_equal(erofs_set_xattr(&tree, tree.root, name, "", 0, &err), -ERANGE);
	assert_int_equal(erofs_set_xattr(&tree, tree.root, "user.x", value, sizeof(value), &err), -ERANGE);
	assert_int_equal(erofs_set_xattr(&tree, tree.root, "system.x", "", 0, &err), -ENOTSUP);
	assert_int_equal(erofs_set_xattr(&tree, tree.root, "user.", "", 0, &err), -ENOTSUP);
	assert_int_equal(erofs_set_xattr(&tree, tree.root, "system.posix_acl_access.x", "", 0, &err), -ENOTSUP);
	assert_null(tree.root->xattrs);
}

/* Data in parts, one of which is larger than 32 bits of bytes, all of it a hole. */
static void test_data_are_found_in_any_part(void **state)
{
	static const uint32_t parts[] = { 2, (6u << 30) / 4096u + (4u << 30) / 4096u, 1 };
	struct erofs_node *n = add(tree.root, "first", S_IFREG | 0644);
	uint64_t meta;

	n->size = 5000;
	n->device = 1;
	n = add(tree.root, "large", S_IFREG | 0644);
	n->size = (uint64_t)parts[1] * 4096 - 1;
	n->device = 2;
	n = add(tree.root, "last", S_IFREG | 0644);
	n->size = 1;
	n->device = 3;
	n = add(tree.root, "empty", S_IFREG | 0644);
	n->device = 3;
	n->block = 1;	/* of no matter */
	write_image(parts, 3);
	meta = blocks - parts[0] - parts[1] - parts[2];
	assert_int_equal(ftruncate(fd, (off_t)(blocks * EROFS_BLOCK)), 0);
	read_image();
	assert_same(tree.root, again.root);
	assert_int_equal(find(&again, "first")->block, meta);
	assert_int_equal(find(&again, "large")->block, meta + parts[0]);
	assert_int_equal(find(&again, "last")->block, meta + parts[0] + parts[1]);
}

static void test_more_than_16_tib_are_refused(void **state)
{
	static const uint32_t parts[] = { UINT32_MAX - 10, 20 };
	const struct erofs_write_options opt = { .fd = fd, .meta_block = 1, .part_blocks = parts, .nparts = 2 };

	assert_int_equal(erofs_write(&tree, &opt, &blocks, &err), -EFBIG);
}

static void test_equal_trees_give_equal_bytes(void **state)
{
	char *first, *second;
	size_t len, len2;

	for (unsigned i = 0; i < 100; i++) {	/* in another order, below */
		char name[16];

		(void)snprintf(name, sizeof(name), "%u", i);
		set(add(tree.root, name, S_IFREG | 0644), "user.x", name, 1);
	}
	write_image(NULL, 0);
	assert_int_equal(file_read_all(path, 1 << 20, &first, &len, NULL), 0);
	erofs_clear(&tree, tree.root);
	for (unsigned i = 100; i-- > 0;) {
		char name[16];

		(void)snprintf(name, sizeof(name), "%u", i);
		set(add(tree.root, name, S_IFREG | 0644), "user.x", name, 1);
	}
	assert_int_equal(ftruncate(fd, 0), 0);
	write_image(NULL, 0);
	assert_int_equal(file_read_all(path, 1 << 20, &second, &len2, NULL), 0);
	assert_int_equal(len, len2);
	assert_memory_equal(first, second, len);
	free(first);
	free(second);
}

static void test_depth_and_costs_are_limited(void **state)
{
	const struct erofs_limits few = { .entries = 3, .bytes = 1 << 20 }, small = { .entries = 100, .bytes = 1000 };
	struct erofs_node *d = tree.root, *n;
	unsigned i;

	for (i = 0; i < EROFS_DEPTH_MAX; i++)
		d = add(d, "d", S_IFDIR | 0755);
	assert_int_equal(erofs_node_new(&tree, S_IFDIR | 0755, &n, &err), 0);
	assert_int_equal(erofs_link(&tree, d, "d", 1, n, &err), -ENAMETOOLONG);
	erofs_node_free(n);
	write_image(NULL, 0);
	read_image();	/* fsck.erofs falls over such a depth */
	assert_same(tree.root, again.root);
	erofs_tree_finish(&tree);

	assert_int_equal(erofs_tree_init(&tree, &few, &err), 0);
	for (i = 0; i < 3; i++)
		(void)add(tree.root, (char[]){ (char)('a' + i), '\0' }, S_IFREG | 0644);
	assert_int_equal(erofs_node_new(&tree, S_IFREG | 0644, &n, &err), 0);
	assert_int_equal(erofs_link(&tree, tree.root, "d", 1, n, &err), -EFBIG);
	erofs_remove(&tree, tree.root, erofs_find(tree.root, "a", 1));
	assert_int_equal(erofs_link(&tree, tree.root, "d", 1, n, &err), 0);	/* one went */
	erofs_tree_finish(&tree);

	assert_int_equal(erofs_tree_init(&tree, &small, &err), 0);
	assert_int_equal(erofs_set_xattr(&tree, tree.root, "user.x", path, sizeof(path), &err), 0);
	for (i = 0; erofs_node_new(&tree, S_IFREG | 0644, &n, &err) == 0; i++)
		erofs_node_free(n);
	assert_in_range(i, 1, 10);
	assert_int_equal(err.code, -EFBIG);
}

static void test_removed_folders_stay_until_they_are_swept(void **state)
{
	struct erofs_node *d = add(tree.root, "d", S_IFDIR | 0755), *inner = add(d, "inner", S_IFDIR | 0755);
	struct erofs_node *file = add(inner, "file", S_IFREG | 0644);

	assert_int_equal(erofs_link(&tree, tree.root, "other", 5, file, &err), 0);
	erofs_remove(&tree, tree.root, erofs_find(tree.root, "d", 1));
	assert_int_equal(tree.entries, 1);
	assert_int_equal(file->nlink, 1);
	(void)add(inner, "late", S_IFREG | 0644);
	erofs_sweep(&tree);
	assert_int_equal(tree.entries, 1);
	write_and_read();
	assert_same(tree.root, again.root);
}

static void test_no_cut_of_an_image_is_read_beyond_its_end(void **state)
{
	char *bytes;
	size_t len;

	set(add(tree.root, "a", S_IFREG | 0644), "user.x", "y", 1);
	assert_int_equal(erofs_set_target(&tree, add(tree.root, "l", S_IFLNK | 0777), "t", 1, &err), 0);
	write_image(NULL, 0);
	assert_int_equal(file_read_all(path, 1 << 20, &bytes, &len, NULL), 0);
	for (size_t n = 0; n < len; n++) {
		char *part = malloc(n + 1);	/* whose end the sanitizers know */
		int r;

		assert_non_null(part);
		memcpy(part, bytes, n);
		r = erofs_read(part, n, 0, &limits, &again, &err);
		if (r == 0)
			assert_same(tree.root, again.root);
		else
			assert_int_equal(r, -EBADMSG);
		erofs_tree_finish(&again);
		free(part);
	}
	free(bytes);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_an_empty_tree_is_an_image),
		T(test_all_kinds_of_files_come_back),
		T(test_devices_that_cannot_be_are_refused),
		T(test_hard_links_stay_one_file),
		T(test_folders_of_any_size_come_back),
		T(test_names_of_255_bytes_are_kept_and_longer_ones_refused),
		T(test_names_that_are_none_are_refused),
		T(test_links_of_any_length_come_back),
		T(test_attributes_come_back),
		T(test_equal_attributes_are_stored_once),
		T(test_hundreds_of_attributes_of_one_file),
		T(test_attributes_that_cannot_be_kept_are_refused),
		T(test_data_are_found_in_any_part),
		T(test_more_than_16_tib_are_refused),
		T(test_equal_trees_give_equal_bytes),
		T(test_depth_and_costs_are_limited),
		T(test_removed_folders_stay_until_they_are_swept),
		T(test_no_cut_of_an_image_is_read_beyond_its_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
