/* SPDX-License-Identifier: Apache-2.0 */
#include "os/blob.h"
#include "os/err.h"
#include "tests/unit/fuse_client.h"
#include "virtio/fs/fs.h"
#include "virtio/fs/owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <cmocka.h>

#define ROOT 1

static struct drv drv;
static struct fuse_client fc;
static char top[64], root[96];	/* the share is a folder inside, so that "outside" is ours too */

static const char *at(const char *name)
{
	static char path[2][512];
	static int turn;

	turn ^= 1;
	(void)snprintf(path[turn], sizeof(path[0]), "%s/%s", root, name);
	return path[turn];
}

static void put_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void start(const struct virtio_fs_options *opt)
{
	struct virtio_fs_options o = *opt;
	struct virtio_device *dev;
	struct err err;

	o.tag = "share";
	o.path = root;
	drv_init(&drv);
	fc = (struct fuse_client){ .drv = &drv };
	if (virtio_fs_create(drv.loop, &o, &dev, &err) < 0)
		fail_msg("%s", err.msg);
	drv_attach(&drv, dev);
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	assert_true(fc_init(&fc) >= 0);
}

static int make_dirs(void **state)
{
	(void)snprintf(top, sizeof(top), "/tmp/roux-fs-XXXXXX");
	assert_non_null(mkdtemp(top));
	(void)snprintf(root, sizeof(root), "%s/share", top);
	assert_int_equal(mkdir(root, 0755), 0);
	return 0;
}

static int setup(void **state)
{
	(void)make_dirs(state);
	start(&(struct virtio_fs_options){ 0 });
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	drv_finish(&drv);
	return nftw(top, remove_one, 64, FTW_DEPTH | FTW_PHYS);
}

static int getattr(uint64_t node, struct fuse_attr *ret)
{
	const struct fuse_getattr_in in = { 0 };
	int r;

	fc_arg(&fc, &in, sizeof(in));
	r = fc_call(&fc, FUSE_GETATTR, node);
	if (r >= 0)
		*ret = ((struct fuse_attr_out *)fc_out(&fc))->attr;
	return r;
}

static int setattr(uint64_t node, const struct fuse_setattr_in *in)
{
	fc_arg(&fc, in, sizeof(*in));
	return fc_call(&fc, FUSE_SETATTR, node);
}

static int rename_to(uint64_t from, const char *old, uint64_t to, const char *new, uint32_t flags)
{
	const struct fuse_rename2_in in = { .newdir = to, .flags = flags };

	fc_arg(&fc, &in, sizeof(in));
	fc_str(&fc, old);
	fc_str(&fc, new);
	return fc_call(&fc, FUSE_RENAME2, from);
}

static int make_dir(uint64_t parent, const char *name, uint32_t mode, uint64_t *ret_node)
{
	const struct fuse_mkdir_in in = { .mode = mode };
	int r;

	*ret_node = 0;
	fc_arg(&fc, &in, sizeof(in));
	fc_str(&fc, name);
	r = fc_call(&fc, FUSE_MKDIR, parent);
	if (r >= 0)
		*ret_node = ((struct fuse_entry_out *)fc_out(&fc))->nodeid;
	return r;
}

static int make_node(uint64_t parent, const char *name, uint32_t mode, uint32_t rdev, uint64_t *ret_node)
{
	const struct fuse_mknod_in in = { .mode = mode, .rdev = rdev };
	int r;

	*ret_node = 0;
	fc_arg(&fc, &in, sizeof(in));
	fc_str(&fc, name);
	r = fc_call(&fc, FUSE_MKNOD, parent);
	if (r >= 0)
		*ret_node = ((struct fuse_entry_out *)fc_out(&fc))->nodeid;
	return r;
}

static int remove_entry(uint32_t op, uint64_t parent, const char *name)
{
	fc_str(&fc, name);
	return fc_call(&fc, op, parent);
}

static int lock(uint32_t op, uint64_t node, uint64_t fh, uint64_t owner, uint32_t type, uint64_t start_,
		uint64_t end, uint32_t flags)
{
	const struct fuse_lk_in in = { .fh = fh, .owner = owner, .lk_flags = flags,
				       .lk = { .start = start_, .end = end, .type = type } };

	fc_arg(&fc, &in, sizeof(in));
	return fc_call(&fc, op, node);
}

static void test_files_are_created_written_and_read(void **state)
{
	uint64_t node, fh, again;
	struct stat st;
	char buf[16];
	int fd;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0640, &node, &fh) > 0);
	assert_int_equal(fc_write(&fc, node, fh, 0, "hello world", 11), sizeof(struct fuse_write_out));
	assert_int_equal(fc_read(&fc, node, fh, 6, 100), 5);
	assert_memory_equal(fc_out(&fc), "world", 5);
	assert_int_equal(fc_read(&fc, node, fh, 11, 100), 0);
	assert_int_equal(fc_release(&fc, FUSE_RELEASE, node, fh), 0);
	assert_int_equal(fc_read(&fc, node, fh, 0, 10), -EBADF);

	assert_int_equal(stat(at("f"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	fd = open(at("f"), O_RDONLY);
	assert_int_equal(read(fd, buf, sizeof(buf)), 11);
	(void)close(fd);
	assert_true(fc_lookup(&fc, ROOT, "f", &again) > 0);
	assert_int_equal(again, node);	/* the same inode is the same node */
	assert_int_equal(fc_create(&fc, ROOT, "f", O_RDWR | O_EXCL, 0640, &node, &fh), -EEXIST);
	assert_true(fc_create(&fc, ROOT, "f", O_RDWR | O_TRUNC, 0640, &node, &fh) > 0);
	assert_int_equal(stat(at("f"), &st), 0);
	assert_int_equal(st.st_size, 0);
}

static void test_a_megabyte_moves_in_one_request(void **state)
{
	static uint8_t data[1u << 20];
	uint64_t node, fh;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 4096);
	assert_true(fc_create(&fc, ROOT, "big", O_RDWR, 0644, &node, &fh) > 0);
	assert_int_equal(fc_write(&fc, node, fh, 0, data, sizeof(data)), sizeof(struct fuse_write_out));
	assert_int_equal(((struct fuse_write_out *)fc_out(&fc))->size, sizeof(data));
	assert_int_equal(fc_read(&fc, node, fh, 0, sizeof(data)), sizeof(data));
	assert_memory_equal(fc_out(&fc), data, sizeof(data));
	assert_true(drv.wrote >= sizeof(data));
	/* Not in the page cache, so through the pool. */
	assert_int_equal(fsync(open(at("big"), O_RDWR)), 0);
	assert_int_equal(posix_fadvise(open(at("big"), O_RDONLY), 0, 0, POSIX_FADV_DONTNEED), 0);
	memset(drv.ram + FUSE_REPLY, 0, FUSE_REPLY_MAX);
	assert_int_equal(fc_read(&fc, node, fh, 0, sizeof(data)), sizeof(data));
	assert_memory_equal(fc_out(&fc), data, sizeof(data));
}

static void test_o_direct_opens_work_at_any_alignment(void **state)
{
	uint64_t node, fh;

	assert_true(fc_create(&fc, ROOT, "d", O_RDWR | O_DIRECT, 0644, &node, &fh) > 0);
	assert_int_equal(fc_write(&fc, node, fh, 3, "abc", 3), sizeof(struct fuse_write_out));
	assert_int_equal(fc_read(&fc, node, fh, 4, 5), 2);
	assert_memory_equal(fc_out(&fc), "bc", 2);
}

static void test_names_that_lead_outside_are_refused(void **state)
{
	uint64_t node = 0, none, fh;
	char path[512], longer[300];

	(void)snprintf(path, sizeof(path), "%s/secret", top);
	put_file(path, "secret");
	assert_int_equal(symlink(path, at("absolute")), 0);
	assert_int_equal(symlink("../secret", at("relative")), 0);
	assert_int_equal(symlink("..", at("up")), 0);
	assert_int_equal(fc_lookup(&fc, ROOT, "..", &node), -EINVAL);
	assert_int_equal(fc_lookup(&fc, ROOT, ".", &node), -EINVAL);
	assert_int_equal(fc_lookup(&fc, ROOT, "", &node), -EINVAL);
	assert_int_equal(fc_lookup(&fc, ROOT, "../secret", &node), -EINVAL);
	assert_int_equal(fc_lookup(&fc, ROOT, path, &node), -EINVAL);
	assert_int_equal(fc_create(&fc, ROOT, "../new", O_RDWR, 0644, &node, &fh), -EINVAL);
	assert_int_equal(make_dir(ROOT, "..", 0755, &node), -EINVAL);
	assert_int_equal(rename_to(ROOT, "absolute", ROOT, "../moved", 0), -EINVAL);
	assert_int_equal(remove_entry(FUSE_UNLINK, ROOT, "../secret"), -EINVAL);
	memset(longer, 'n', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(fc_lookup(&fc, ROOT, longer, &node), -ENAMETOOLONG);

	/* A link is text: it is neither followed as a file nor as a folder. */
	assert_true(fc_lookup(&fc, ROOT, "absolute", &node) > 0);
	assert_int_equal(fc_open(&fc, FUSE_OPEN, node, O_RDONLY, &fh), -ELOOP);
	assert_int_equal(fc_create(&fc, ROOT, "absolute", O_RDWR, 0644, &none, &fh), -ELOOP);
	assert_int_equal(fc_call(&fc, FUSE_READLINK, node), strlen(path));
	assert_memory_equal(fc_out(&fc), path, strlen(path));
	assert_true(fc_lookup(&fc, ROOT, "up", &node) > 0);
	assert_int_equal(fc_lookup(&fc, node, "secret", &none), -ENOTDIR);
	assert_int_equal(fc_open(&fc, FUSE_OPENDIR, node, O_RDONLY, &fh), -ENOTDIR);
	assert_int_equal(access(path, F_OK), 0);
}

static void test_unknown_nodes_and_handles_are_refused(void **state)
{
	struct fuse_attr attr;
	uint64_t node, fh;

	assert_int_equal(getattr(0, &attr), -ESTALE);
	assert_int_equal(getattr(77, &attr), -ESTALE);
	assert_int_equal(getattr(UINT64_MAX, &attr), -ESTALE);
	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh) > 0);
	assert_int_equal(fc_read(&fc, node, fh + 1, 0, 1), -EBADF);
	assert_int_equal(fc_read(&fc, ROOT, fh, 0, 1), -EISDIR);
	assert_int_equal(fc_call(&fc, 9999, ROOT), -ENOSYS);
	assert_int_equal(fc_call(&fc, FUSE_WRITE, node), -EINVAL);	/* no arguments at all */
	assert_int_equal(fc_call(&fc, FUSE_IOCTL, node), -ENOTTY);
	fc_forget(&fc, node, 1);
	fc_release(&fc, FUSE_RELEASE, node, fh);
	assert_int_equal(getattr(node, &attr), -ESTALE);
	fc_forget(&fc, ROOT, 1000);
	assert_true(getattr(ROOT, &attr) > 0);	/* the root is never forgotten */
}

static void test_unmounting_forgets_everything(void **state)
{
	struct fuse_attr attr;
	uint64_t node, fh;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh) > 0);
	assert_int_equal(fc_call(&fc, FUSE_DESTROY, 0), 0);
	assert_int_equal(getattr(ROOT, &attr), -EPROTO);	/* not before INIT */
	assert_true(fc_init(&fc) > 0);
	assert_int_equal(getattr(node, &attr), -ESTALE);
	assert_true(fc_lookup(&fc, ROOT, "f", &node) > 0);
	assert_int_equal(fc_read(&fc, node, fh, 0, 1), -EBADF);
}

static void test_attributes_can_be_changed(void **state)
{
	struct fuse_setattr_in in = { .valid = FATTR_MODE | FATTR_SIZE | FATTR_MTIME | FATTR_ATIME_NOW,
				      .mode = 04711, .size = 5000, .mtime = 1000, .mtimensec = 7 };
	struct fuse_attr attr;
	uint64_t node, fh;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh) > 0);
	assert_true(setattr(node, &in) > 0);
	assert_true(getattr(node, &attr) > 0);
	assert_int_equal(attr.mode, S_IFREG | 04711);
	assert_int_equal(attr.size, 5000);
	assert_int_equal(attr.mtime, 1000);
	assert_int_equal(attr.mtimensec, 7);
	assert_true(attr.atime > 1000);
	in = (struct fuse_setattr_in){ .valid = FATTR_SIZE | FATTR_FH | FATTR_KILL_SUIDGID, .fh = fh };
	assert_true(setattr(node, &in) > 0);
	assert_true(getattr(node, &attr) > 0);
	assert_int_equal(attr.size, 0);
	assert_int_equal(attr.mode, S_IFREG | 0711);
	if (geteuid() == 0) {
		in = (struct fuse_setattr_in){ .valid = FATTR_UID | FATTR_GID, .uid = 1234, .gid = 5678 };
		assert_true(setattr(node, &in) > 0);
		assert_true(getattr(node, &attr) > 0);
		assert_int_equal(attr.uid, 1234);
		assert_int_equal(attr.gid, 5678);
	}
}

static void test_new_objects_belong_to_the_caller(void **state)
{
	struct fuse_setattr_in setgid = { .valid = FATTR_MODE | FATTR_GID, .mode = 02777, .gid = 900 };
	uint64_t node, fh, dir;
	struct stat st;
	mode_t mask;

	if (geteuid() != 0)
		skip();
	fc.uid = 1000;
	fc.gid = 1001;
	mask = umask(077);	/* ours must not show: the guest's kernel applied the caller's */
	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0666, &node, &fh) > 0);
	assert_true(make_dir(ROOT, "d", 0777, &dir) > 0);
	assert_true(make_node(ROOT, "p", S_IFIFO | 0622, 0, &node) > 0);
	(void)umask(mask);
	assert_int_equal(stat(at("f"), &st), 0);
	assert_int_equal(st.st_uid, 1000);
	assert_int_equal(st.st_gid, 1001);
	assert_int_equal(st.st_mode, S_IFREG | 0666);
	assert_int_equal(stat(at("p"), &st), 0);
	assert_int_equal(st.st_mode, S_IFIFO | 0622);
	fc_str(&fc, "l");
	fc_str(&fc, "target");
	assert_true(fc_call(&fc, FUSE_SYMLINK, ROOT) > 0);
	assert_int_equal(lstat(at("l"), &st), 0);
	assert_int_equal(st.st_uid, 1000);

	assert_true(setattr(dir, &setgid) > 0);
	assert_true(fc_create(&fc, dir, "inherits", O_RDWR, 0644, &node, &fh) > 0);
	assert_int_equal(stat(at("d/inherits"), &st), 0);
	assert_int_equal(st.st_gid, 900);
	assert_true(make_dir(dir, "sub", 0755, &node) > 0);
	assert_int_equal(stat(at("d/sub"), &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 02755);
}

static void test_rename_replaces_refuses_and_exchanges(void **state)
{
	uint64_t a, b, dir, node, fh;

	assert_true(fc_create(&fc, ROOT, "a", O_RDWR, 0644, &a, &fh) > 0);
	assert_true(fc_create(&fc, ROOT, "b", O_RDWR, 0644, &b, &fh) > 0);
	assert_true(make_dir(ROOT, "dir", 0755, &dir) > 0);
	assert_int_equal(rename_to(ROOT, "a", ROOT, "b", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(rename_to(ROOT, "a", ROOT, "b", RENAME_EXCHANGE), 0);
	assert_true(fc_lookup(&fc, ROOT, "a", &node) > 0);
	assert_int_equal(node, b);
	assert_int_equal(rename_to(ROOT, "b", dir, "c", 0), 0);
	assert_true(fc_lookup(&fc, dir, "c", &node) > 0);
	assert_int_equal(node, a);
	assert_int_equal(rename_to(ROOT, "a", dir, "c", 0), 0);	/* replaces */
	assert_true(fc_lookup(&fc, dir, "c", &node) > 0);
	assert_int_equal(node, b);
	assert_int_equal(fc_write(&fc, b, fh, 0, "x", 1), sizeof(struct fuse_write_out));
	assert_int_equal(rename_to(ROOT, "dir", dir, "sub", 0), -EINVAL);
	assert_int_equal(rename_to(ROOT, "x", dir, "y", 1u << 20), -EINVAL);
}

static void test_hard_links_share_a_node(void **state)
{
	struct fuse_link_in in = { 0 };
	struct fuse_attr attr;
	uint64_t node, fh, other;

	assert_true(fc_create(&fc, ROOT, "one", O_RDWR, 0644, &node, &fh) > 0);
	in.oldnodeid = node;
	fc_arg(&fc, &in, sizeof(in));
	fc_str(&fc, "two");
	assert_true(fc_call(&fc, FUSE_LINK, ROOT) > 0);
	assert_true(fc_lookup(&fc, ROOT, "two", &other) > 0);
	assert_int_equal(other, node);
	assert_true(getattr(node, &attr) > 0);
	assert_int_equal(attr.nlink, 2);
	assert_int_equal(remove_entry(FUSE_UNLINK, ROOT, "one"), 0);
	assert_int_equal(remove_entry(FUSE_UNLINK, ROOT, "two"), 0);
	assert_true(getattr(node, &attr) > 0);	/* open, so it lives on without a name */
	assert_int_equal(attr.nlink, 0);

	assert_int_equal(symlink("nowhere", at("sym")), 0);
	assert_true(fc_lookup(&fc, ROOT, "sym", &in.oldnodeid) > 0);
	fc_arg(&fc, &in, sizeof(in));
	fc_str(&fc, "sym2");
	assert_true(fc_call(&fc, FUSE_LINK, ROOT) > 0);
	assert_int_equal(((struct fuse_entry_out *)fc_out(&fc))->nodeid, in.oldnodeid);
}

static void test_folders_are_made_and_removed(void **state)
{
	uint64_t dir, sub;

	assert_true(make_dir(ROOT, "dir", 0750, &dir) > 0);
	assert_true(make_dir(dir, "sub", 0700, &sub) > 0);
	assert_int_equal(remove_entry(FUSE_RMDIR, ROOT, "dir"), -ENOTEMPTY);
	assert_int_equal(remove_entry(FUSE_UNLINK, dir, "sub"), -EISDIR);
	assert_int_equal(remove_entry(FUSE_RMDIR, dir, "sub"), 0);
	assert_int_equal(remove_entry(FUSE_RMDIR, ROOT, "dir"), 0);
}

/* Reads a whole folder; counts names and adds up their numbers. */
static unsigned read_all(uint32_t op, uint64_t dir, uint64_t fh, uint64_t *ret_sum)
{
	struct fuse_read_in in = { .fh = fh, .size = 16384 };
	size_t skip = op == FUSE_READDIRPLUS ? sizeof(struct fuse_entry_out) : 0;
	unsigned count = 0;
	int r;

	*ret_sum = 0;
	for (;;) {
		const uint8_t *p;

		fc_arg(&fc, &in, sizeof(in));
		r = fc_call(&fc, op, dir);
		assert_true(r >= 0);
		if (r == 0)
			return count;
		p = fc_out(&fc);
		for (int pos = 0; pos < r;) {
			const struct fuse_dirent *d = (const void *)(p + pos + skip);

			in.offset = d->off;
			pos += (int)FUSE_DIRENT_ALIGN(skip + FUSE_NAME_OFFSET + d->namelen);
			assert_true(pos <= r);
			if (d->name[0] == 'n') {
				*ret_sum += strtoul(d->name + 1, NULL, 10);
				count++;
				if (skip)
					assert_true(((const struct fuse_entry_out *)(const void *)
						     ((const uint8_t *)d - skip))->nodeid > ROOT);
			}
		}
	}
}

static void test_big_folders_are_listed_completely(void **state)
{
	const unsigned n = 20000;
	uint64_t fh, sum;
	char name[16];

	for (unsigned i = 0; i < n; i++) {
		(void)snprintf(name, sizeof(name), "n%u", i);
		(void)close(open(at(name), O_CREAT | O_WRONLY, 0644));
	}
	assert_true(fc_open(&fc, FUSE_OPENDIR, ROOT, O_RDONLY, &fh) > 0);
	assert_int_equal(read_all(FUSE_READDIR, ROOT, fh, &sum), n);
	assert_int_equal(sum, (uint64_t)n * (n - 1) / 2);
	assert_int_equal(read_all(FUSE_READDIRPLUS, ROOT, fh, &sum), n);
	assert_int_equal(sum, (uint64_t)n * (n - 1) / 2);
	assert_int_equal(fc_release(&fc, FUSE_RELEASEDIR, ROOT, fh), 0);
}

static void test_more_nodes_than_descriptors(void **state)
{
	uint64_t dir, sub, node[200], other, fh;
	struct fuse_attr attr;
	char name[32];

	drv_finish(&drv);
	start(&(struct virtio_fs_options){ .fd_budget = 16 });
	assert_true(make_dir(ROOT, "dir", 0755, &dir) > 0);
	assert_true(make_dir(dir, "sub", 0755, &sub) > 0);
	for (unsigned i = 0; i < 200; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		assert_true(fc_create(&fc, sub, name, O_RDWR, 0600 + i % 8, &node[i], &fh) > 0);
		assert_int_equal(fc_release(&fc, FUSE_RELEASE, node[i], fh), 0);
	}
	for (unsigned i = 0; i < 200; i++) {
		assert_true(getattr(node[i], &attr) > 0);
		assert_int_equal(attr.mode & 7, i % 8);
	}
	assert_int_equal(rename_to(dir, "sub", ROOT, "moved", 0), 0);
	assert_int_equal(rename_to(sub, "f7", dir, "seven", 0), 0);
	assert_int_equal(remove_entry(FUSE_UNLINK, sub, "f8"), 0);
	for (unsigned i = 0; i < 200; i++)	/* also those whose way there has changed */
		assert_true(getattr(node[i], &attr) > 0);
	assert_true(getattr(node[8], &attr) > 0);
	assert_int_equal(attr.nlink, 0);

	/* Replaced behind our back: not the inode the guest knows. */
	for (unsigned i = 50; i < 100; i++)
		assert_true(getattr(node[i], &attr) > 0);	/* f9 is evicted now */
	put_file(at("moved/new"), "x");
	assert_int_equal(rename(at("moved/new"), at("moved/f9")), 0);
	assert_int_equal(getattr(node[9], &attr), -ESTALE);
	assert_true(fc_lookup(&fc, sub, "f9", &other) > 0);
	assert_int_not_equal(other, node[9]);
	for (unsigned i = 0; i < 16; i++)
		assert_true(fc_open(&fc, FUSE_OPEN, node[20], O_RDONLY, &fh) > 0);
	assert_int_equal(fc_open(&fc, FUSE_OPEN, node[20], O_RDONLY, &fh), -ENFILE);
}

static int get_xattr(uint64_t node, const char *name, uint32_t size)
{
	const struct fuse_getxattr_in in = { .size = size };

	fc_arg(&fc, &in, sizeof(in));
	if (name)
		fc_str(&fc, name);
	return fc_call(&fc, name ? FUSE_GETXATTR : FUSE_LISTXATTR, node);
}

static int set_xattr(uint64_t node, const char *name, const char *value, uint32_t flags)
{
	const struct fuse_setxattr_in in = { .size = (uint32_t)strlen(value), .flags = flags };

	fc_arg(&fc, &in, FUSE_COMPAT_SETXATTR_IN_SIZE);
	fc_str(&fc, name);
	fc_arg(&fc, value, strlen(value));
	return fc_call(&fc, FUSE_SETXATTR, node);
}

static void test_extended_attributes(void **state)
{
	uint64_t node, fh;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh) > 0);
	if (setxattr(at("f"), "user.probe", "1", 1, 0) < 0)
		skip();	/* the folder for temporary files has none */
	assert_int_equal(set_xattr(node, "user.color", "green", 0), 0);
	assert_int_equal(set_xattr(node, "user.color", "red", XATTR_CREATE), -EEXIST);
	assert_int_equal(get_xattr(node, "user.color", 0), sizeof(struct fuse_getxattr_out));
	assert_int_equal(((struct fuse_getxattr_out *)fc_out(&fc))->size, 5);
	assert_int_equal(get_xattr(node, "user.color", 4), -ERANGE);
	assert_int_equal(get_xattr(node, "user.color", 64), 5);
	assert_memory_equal(fc_out(&fc), "green", 5);
	assert_int_equal(get_xattr(node, "user.none", 64), -ENODATA);
	assert_int_equal(get_xattr(node, NULL, 256), 22);	/* "user.probe", "user.color" */
	fc_str(&fc, "user.color");
	assert_int_equal(fc_call(&fc, FUSE_REMOVEXATTR, node), 0);
	assert_int_equal(get_xattr(node, "user.color", 64), -ENODATA);

	/* Ours are neither seen nor set. */
	assert_int_equal(setxattr(at("f"), OWNER_XATTR, "0:0:0:0:0", 9, 0), 0);
	assert_int_equal(get_xattr(node, OWNER_XATTR, 64), -ENODATA);
	assert_int_equal(set_xattr(node, OWNER_XATTR, "x", 0), -EPERM);
	assert_int_equal(get_xattr(node, NULL, 256), 11);
	assert_int_equal(set_xattr(node, "system.posix_acl_access", "x", 0), -EOPNOTSUPP);
}

static void test_posix_locks_hold_between_owners_and_the_host(void **state)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10 };
	const struct fuse_flush_in flush = { .lock_owner = 1 };
	const struct fuse_lk_out *out = fc_out(&fc);
	uint64_t node, fh;
	int fd;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh) > 0);
	assert_int_equal(lock(FUSE_SETLK, node, fh, 1, F_WRLCK, 0, 9, 0), 0);
	assert_int_equal(lock(FUSE_SETLK, node, fh, 2, F_RDLCK, 5, 20, 0), -EAGAIN);
	assert_int_equal(lock(FUSE_SETLK, node, fh, 2, F_WRLCK, 10, INT64_MAX, 0), 0);
	assert_true(lock(FUSE_GETLK, node, fh, 3, F_RDLCK, 0, 0, 0) > 0);
	assert_int_equal(out->lk.type, F_WRLCK);
	assert_int_equal(out->lk.end, 9);
	fd = open(at("f"), O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), -1);
	fc_arg(&fc, &flush, sizeof(flush));
	assert_int_equal(fc_call(&fc, FUSE_FLUSH, node), 0);	/* owner 1 closed the file */
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	assert_int_equal(lock(FUSE_SETLK, node, fh, 1, F_WRLCK, 0, 0, 0), -EAGAIN);
	assert_int_equal(lock(FUSE_SETLK, node, fh, 1, F_WRLCK, 9, 3, 0), -EINVAL);
	assert_int_equal(lock(FUSE_SETLK, node, fh, 1, 77, 0, 3, 0), -EINVAL);
	(void)close(fd);
}

/* Sends a SETLKW that has to wait; its reply lands at FUSE_REPLY later. */
static void send_waiting_lock(uint64_t node, uint64_t fh)
{
	const struct fuse_lk_in in = { .fh = fh, .owner = 9, .lk = { .end = 5, .type = F_WRLCK } };
	struct drv_seg seg[4];
	uint32_t id, len;
	unsigned n;

	fc_arg(&fc, &in, sizeof(in));
	n = fc_segs(&fc, FUSE_SETLKW, node, seg);
	(void)drv_add(&drv, 1, seg, n);
	drv_kick(&drv, 1);
	assert_false(drv_used(&drv, 1, &id, &len));
}

static int64_t wait_used(void)
{
	uint32_t id, len;

	for (int i = 0; i < 5000; i++) {
		drv_pump(&drv);
		if (drv_used(&drv, 1, &id, &len))
			return len;
		(void)usleep(1000);
	}
	return -1;
}

static void test_waiting_for_a_lock_stalls_nobody(void **state)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	const struct fuse_interrupt_in interrupt = { .unique = FUSE_UNIQUE };
	struct drv_seg seg[4];
	uint64_t node, fh;
	unsigned n;
	int fd;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh) > 0);
	fd = open(at("f"), O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	send_waiting_lock(node, fh);
	(void)close(fd);	/* the host lets go, without telling anybody */
	assert_int_equal(wait_used(), 16);
	assert_int_equal(fc_header(&fc)->error, 0);

	assert_int_equal(lock(FUSE_SETLK, node, fh, 9, F_UNLCK, 0, 100, 0), 0);
	fd = open(at("f"), O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	send_waiting_lock(node, fh);
	fc_arg(&fc, &interrupt, sizeof(interrupt));
	n = fc_segs(&fc, FUSE_INTERRUPT, 0, seg);
	(void)drv_add(&drv, 1, seg, n - 1);
	drv_kick(&drv, 1);
	assert_int_equal(wait_used(), 16);
	assert_int_equal(fc_header(&fc)->error, -EINTR);
	assert_int_equal(wait_used(), 0);

	send_waiting_lock(node, fh);	/* reset while it waits */
	assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
	(void)close(fd);
	assert_true(fc_init(&fc) > 0);
	assert_int_equal(fc_lookup(&fc, ROOT, "f", &node) > 0, 1);
}

static void test_flock_belongs_to_the_open_file(void **state)
{
	uint64_t node, fh[2];
	int fd;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh[0]) > 0);
	assert_true(fc_open(&fc, FUSE_OPEN, node, O_RDWR, &fh[1]) > 0);
	assert_int_equal(lock(FUSE_SETLK, node, fh[0], 1, F_WRLCK, 0, INT64_MAX, FUSE_LK_FLOCK), 0);
	assert_int_equal(lock(FUSE_SETLK, node, fh[1], 1, F_RDLCK, 0, INT64_MAX, FUSE_LK_FLOCK), -EAGAIN);
	fd = open(at("f"), O_RDWR);
	assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), -1);
	assert_int_equal(fc_release(&fc, FUSE_RELEASE, node, fh[0]), 0);
	assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), 0);
	(void)close(fd);
}

static void test_space_seek_copy_and_sync(void **state)
{
	struct fuse_fallocate_in alloc = { .offset = 1u << 20, .length = 4096 };
	struct fuse_lseek_in seek = { .whence = SEEK_HOLE };
	struct fuse_copy_file_range_in copy = { .len = 5 };
	struct fuse_fsync_in sync = { 0 };
	struct stat st;
	uint64_t a, b, fa, fb;

	assert_true(fc_create(&fc, ROOT, "a", O_RDWR, 0644, &a, &fa) > 0);
	assert_true(fc_create(&fc, ROOT, "b", O_RDWR, 0644, &b, &fb) > 0);
	assert_true(fc_write(&fc, a, fa, 0, "12345678", 8) > 0);
	alloc.fh = fa;
	fc_arg(&fc, &alloc, sizeof(alloc));
	assert_int_equal(fc_call(&fc, FUSE_FALLOCATE, a), 0);
	assert_int_equal(stat(at("a"), &st), 0);
	assert_int_equal(st.st_size, (1 << 20) + 4096);
	seek.fh = fa;
	fc_arg(&fc, &seek, sizeof(seek));
	assert_true(fc_call(&fc, FUSE_LSEEK, a) > 0);
	assert_true(((struct fuse_lseek_out *)fc_out(&fc))->offset <= 1u << 20);
	copy.fh_in = fa;
	copy.off_in = 2;
	copy.nodeid_out = b;
	copy.fh_out = fb;
	fc_arg(&fc, &copy, sizeof(copy));
	assert_true(fc_call(&fc, FUSE_COPY_FILE_RANGE, a) > 0);
	assert_int_equal(fc_read(&fc, b, fb, 0, 100), 5);
	assert_memory_equal(fc_out(&fc), "34567", 5);
	sync.fh = fb;
	fc_arg(&fc, &sync, sizeof(sync));
	assert_int_equal(fc_call(&fc, FUSE_FSYNC, b), 0);
	fc_arg(&fc, &(uint64_t){ 0 }, 8);
	assert_int_equal(fc_call(&fc, FUSE_SYNCFS, ROOT), 0);
	assert_int_equal(fc_call(&fc, FUSE_STATFS, ROOT), sizeof(struct fuse_statfs_out));
}

static void test_nameless_files_can_get_a_name(void **state)
{
	const struct fuse_create_in in = { .flags = O_RDWR, .mode = 0600 };
	struct fuse_link_in link_in = { 0 };
	const struct fuse_entry_out *e;
	int r;

	fc_arg(&fc, &in, sizeof(in));
	fc_str(&fc, "");
	r = fc_call(&fc, FUSE_TMPFILE, ROOT);
	if (r == -EOPNOTSUPP)
		skip();
	assert_true(r > 0);
	e = fc_out(&fc);
	link_in.oldnodeid = e->nodeid;
	fc_arg(&fc, &link_in, sizeof(link_in));
	fc_str(&fc, "named");
	assert_true(fc_call(&fc, FUSE_LINK, ROOT) > 0);
	assert_int_equal(access(at("named"), F_OK), 0);
}

static void test_access_follows_the_mode(void **state)
{
	struct fuse_access_in in = { .mask = W_OK };
	uint64_t node, fh;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh) > 0);
	fc_arg(&fc, &in, sizeof(in));
	assert_int_equal(fc_call(&fc, FUSE_ACCESS, node), 0);
	fc.uid = fc.gid = 4321;
	fc_arg(&fc, &in, sizeof(in));
	assert_int_equal(fc_call(&fc, FUSE_ACCESS, node), -EACCES);
	in.mask = R_OK;
	fc_arg(&fc, &in, sizeof(in));
	assert_int_equal(fc_call(&fc, FUSE_ACCESS, node), 0);
}

static void test_saved_share_goes_on_in_another_process(void **state)
{
	uint64_t dir, sub, node, fh, gone, gone_fh, again;
	struct virtio_fs_options opt = { .tag = "share", .path = root };
	struct virtio_device *dev;
	struct blob_reader in;
	struct blob blob = { 0 };
	struct fuse_attr attr;

	assert_true(make_dir(ROOT, "dir", 0755, &dir) > 0);
	assert_true(make_dir(dir, "sub", 0755, &sub) > 0);
	assert_true(fc_create(&fc, sub, "f", O_RDWR, 0644, &node, &fh) > 0);
	assert_true(fc_write(&fc, node, fh, 0, "before", 6) > 0);
	assert_true(fc_create(&fc, sub, "gone", O_RDWR, 0644, &gone, &gone_fh) > 0);
	assert_int_equal(rename_to(dir, "sub", ROOT, "moved", 0), 0);
	assert_int_equal(remove_entry(FUSE_UNLINK, sub, "gone"), 0);
	virtio_mmio_pause(drv.mmio);
	virtio_mmio_save(drv.mmio, &blob);
	virtio_mmio_resume(drv.mmio);
	assert_false(blob.failed);
	virtio_mmio_destroy(drv.mmio);
	virtio_device_destroy(drv.dev);
	assert_int_equal(virtio_fs_create(drv.loop, &opt, &dev, NULL), 0);
	drv_attach(&drv, dev);

	for (size_t n = 0; n < blob.len; n++) {	/* every truncation is noticed */
		in = (struct blob_reader){ .at = blob.bytes, .left = n };
		assert_int_equal(virtio_mmio_restore(drv.mmio, &in, NULL), -EINVAL);
	}
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(virtio_mmio_restore(drv.mmio, &in, NULL), 0);
	assert_int_equal(in.left, 0);
	assert_true(fc_write(&fc, node, fh, 6, " after", 6) > 0);
	assert_int_equal(fc_read(&fc, node, fh, 0, 100), 12);
	assert_memory_equal(fc_out(&fc), "before after", 12);
	assert_true(fc_lookup(&fc, sub, "f", &again) > 0);
	assert_int_equal(again, node);
	assert_int_equal(getattr(gone, &attr), -ESTALE);
	assert_int_equal(fc_read(&fc, node, gone_fh, 0, 1), -EBADF);
	assert_true(fc_create(&fc, ROOT, "new", O_RDWR, 0644, &again, &fh) > 0);
	assert_int_not_equal(again, gone);
	/* Another file of the same name is something else. */
	assert_int_equal(rename_to(ROOT, "new", sub, "f", 0), 0);
	in = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	assert_int_equal(virtio_mmio_restore(drv.mmio, &in, NULL), 2);	/* it is open */
	blob_finish(&blob);
}

static void *run_loop(void *loop)
{
	(void)loop_run(loop, NULL);
	return NULL;
}

#define FLOOD 40u	/* requests */
#define FLOOD_REPLY 0x5000u	/* bytes each */

/* Offers reads and syncs, each with buffers of its own, without waiting for their replies. */
static void flood(uint64_t node, uint64_t fh)
{
	const struct fuse_read_in read_in = { .fh = fh, .size = 16384 };
	const struct fuse_fsync_in sync_in = { .fh = fh };
	struct drv_seg seg[4];

	for (unsigned i = 0; i < FLOOD; i++) {
		gpa_t at = FUSE_REQ + (i + 1) * 0x100;
		bool sync = i % 4 == 3;
		unsigned n;

		if (sync)
			fc_arg(&fc, &sync_in, sizeof(sync_in));
		else
			fc_arg(&fc, &read_in, sizeof(read_in));
		n = fc_segs(&fc, sync ? FUSE_FSYNC : FUSE_READ, node, seg);
		memcpy(drv.ram + at, drv.ram + FUSE_REQ, 0x100);
		seg[0].gpa = at;
		seg[1].gpa = at + seg[0].len;
		seg[n - 1] = (struct drv_seg){ FUSE_REPLY + i * FLOOD_REPLY, FLOOD_REPLY, true };
		(void)drv_add(&drv, 1, seg, n);
	}
	drv_write(&drv, 0x50, 1);
}

static void test_nothing_is_written_after_a_reset(void **state)
{
	static uint8_t block[65536];
	pthread_t thread;
	uint64_t node, fh;

	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 0644, &node, &fh) > 0);
	assert_true(fc_write(&fc, node, fh, 0, block, sizeof(block)) > 0);
	drv.has_thread = true;
	assert_int_equal(pthread_create(&thread, NULL, run_loop, drv.loop), 0);
	for (int i = 0; i < 60; i++) {
		assert_true(fc_lookup(&fc, ROOT, "f", &node) > 0);
		assert_true(fc_open(&fc, FUSE_OPEN, node, O_RDWR, &fh) > 0);
		flood(node, fh);
		(void)usleep((unsigned)i * 7);
		drv_write(&drv, 0x70, 0);	/* at any moment of the work */
		memset(drv.ram + FUSE_REPLY, 0xee, FLOOD * FLOOD_REPLY);
		(void)usleep(300);
		for (unsigned k = 0; k < FLOOD * FLOOD_REPLY; k++)
			if (drv.ram[FUSE_REPLY + k] != 0xee)
				fail_msg("byte %u written after reset %d", k, i);
		assert_int_equal(drv_start(&drv, DRV_FEATURES_ALL), 15);
		assert_true(fc_init(&fc) > 0);
	}
	loop_quit(drv.loop);
	assert_int_equal(pthread_join(thread, NULL), 0);
	drv.has_thread = false;
}

static int setup_read_only(void **state)
{
	(void)make_dirs(state);
	put_file(at("f"), "contents");
	assert_int_equal(mkdir(at("d"), 0755), 0);
	start(&(struct virtio_fs_options){ .read_only = true, .cache = VIRTIO_FS_CACHE_ALWAYS });
	return 0;
}

static void test_read_only_share_refuses_every_change(void **state)
{
	const struct fuse_setattr_in in = { .valid = FATTR_MODE, .mode = 0777 };
	uint64_t node, other, fh;

	assert_true(fc_lookup(&fc, ROOT, "f", &node) > 0);
	assert_int_equal(fc_create(&fc, ROOT, "new", O_RDWR, 0644, &other, &fh), -EROFS);
	assert_int_equal(fc_open(&fc, FUSE_OPEN, node, O_RDWR, &fh), -EROFS);
	assert_int_equal(fc_open(&fc, FUSE_OPEN, node, O_TRUNC, &fh), -EROFS);
	assert_int_equal(setattr(node, &in), -EROFS);
	assert_int_equal(make_dir(ROOT, "x", 0755, &other), -EROFS);
	assert_int_equal(make_node(ROOT, "x", S_IFREG, 0, &other), -EROFS);
	assert_int_equal(remove_entry(FUSE_UNLINK, ROOT, "f"), -EROFS);
	assert_int_equal(remove_entry(FUSE_RMDIR, ROOT, "d"), -EROFS);
	assert_int_equal(rename_to(ROOT, "f", ROOT, "g", 0), -EROFS);
	assert_int_equal(set_xattr(node, "user.x", "1", 0), -EROFS);
	assert_int_equal(fc_write(&fc, node, 0, 0, "x", 1), -EROFS);
	assert_int_equal(fc_call(&fc, FUSE_FALLOCATE, node), -EROFS);
	assert_int_equal(fc_call(&fc, FUSE_TMPFILE, ROOT), -EROFS);
	assert_int_equal(fc_call(&fc, FUSE_LINK, ROOT), -EROFS);
	assert_int_equal(fc_call(&fc, FUSE_SYMLINK, ROOT), -EROFS);
}

static void test_image_share_needs_no_opens_and_keeps_absent_names(void **state)
{
	const struct fuse_entry_out *e = fc_out(&fc);
	uint64_t node, none = 7, fh, sum;

	assert_true(fc_lookup(&fc, ROOT, "f", &node) > 0);
	assert_true(e->entry_valid > 3600);
	assert_int_equal(fc_open(&fc, FUSE_OPEN, node, O_RDONLY, &fh), -ENOSYS);
	assert_int_equal(fc_open(&fc, FUSE_OPENDIR, ROOT, O_RDONLY, &fh), -ENOSYS);
	assert_int_equal(fc_read(&fc, node, 0, 3, 100), 5);
	assert_memory_equal(fc_out(&fc), "tents", 5);
	assert_int_equal(read_all(FUSE_READDIRPLUS, ROOT, 0, &sum), 0);
	assert_true(fc_lookup(&fc, ROOT, "absent", &none) > 0);
	assert_int_equal(none, 0);
}

static void add_read(void *ctx, const char *path, uint64_t from, uint64_t len)
{
	char *text = ctx;
	size_t at = strlen(text);

	(void)snprintf(text + at, 200 - at, "%s %llu+%llu ", path, (unsigned long long)from >> 10, (unsigned long long)len >> 10);
}

static void test_what_was_read_of_a_read_only_share_is_known(void **state)
{
	uint64_t node, other, fh;
	char text[200] = "";

	put_file(at("d/g"), "x");
	assert_int_equal(truncate(at("d/g"), 100 << 20), 0);
	assert_true(fc_lookup(&fc, ROOT, "f", &node) > 0);
	assert_int_equal(fc_read(&fc, node, 0, 0, 100), 8);
	assert_true(fc_lookup(&fc, ROOT, "d", &other) > 0);
	assert_true(fc_lookup(&fc, other, "g", &node) > 0);
	assert_int_equal(fc_open(&fc, FUSE_OPEN, node, O_RDONLY, &fh), -ENOSYS);
	assert_int_equal(fc_read(&fc, node, 0, 65535, 2), 2);
	assert_int_equal(fc_read(&fc, node, 0, 3 << 20, 1), 1);
	virtio_fs_reads(drv.dev, add_read, text);
	assert_string_equal(text, "f 0+64 d/g 0+128 d/g 3072+64 ");
	assert_int_equal(virtio_fs_bytes_read(drv.dev), 256 << 10);
	text[0] = '\0';
	assert_int_equal(fc_read(&fc, node, 0, (100 << 20) - 1, 9), 1);	/* pieces become larger */
	virtio_fs_reads(drv.dev, add_read, text);
	assert_string_equal(text, "f 0+64 d/g 0+4096 d/g 100352+2048 ");
	virtio_fs_forget_reads(drv.dev);
	text[0] = '\0';
	virtio_fs_reads(drv.dev, add_read, text);
	assert_string_equal(text, "");
	assert_int_equal(virtio_fs_bytes_read(drv.dev), 0);
}

static int setup_squash(void **state)
{
	(void)make_dirs(state);
	start(&(struct virtio_fs_options){ .owner = VIRTIO_FS_OWNER_SQUASH });
	return 0;
}

static void test_squashed_owners_and_types_are_remembered(void **state)
{
	struct fuse_setattr_in in = { .valid = FATTR_UID | FATTR_GID, .uid = 33, .gid = 44 };
	struct fuse_attr attr;
	uint64_t node, fh, dev;
	struct stat st;

	assert_int_equal(chown(root, geteuid(), getegid()), 0);
	if (setxattr(root, "user.probe", "1", 1, 0) < 0)
		skip();
	assert_true(getattr(ROOT, &attr) > 0);
	assert_int_equal(attr.uid, 0);	/* whoever we are, we are its root */
	fc.uid = 1000;
	fc.gid = 1000;
	assert_true(fc_create(&fc, ROOT, "f", O_RDWR, 04000, &node, &fh) > 0);
	assert_true(getattr(node, &attr) > 0);
	assert_int_equal(attr.uid, 1000);
	assert_int_equal(attr.mode, S_IFREG | 04000);
	assert_int_equal(stat(at("f"), &st), 0);
	assert_int_equal(st.st_uid, geteuid());
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_true(setattr(node, &in) > 0);
	assert_true(getattr(node, &attr) > 0);
	assert_int_equal(attr.uid, 33);
	assert_int_equal(attr.gid, 44);
	assert_int_equal(attr.mode, S_IFREG);	/* a change of owner drops set-user-id */

	assert_true(make_node(ROOT, "null", S_IFCHR | 0666, (uint32_t)makedev(1, 3), &dev) > 0);
	assert_true(getattr(dev, &attr) > 0);
	assert_int_equal(attr.mode, S_IFCHR | 0666);
	assert_int_equal(attr.rdev, makedev(1, 3));
	assert_int_equal(stat(at("null"), &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_true(make_dir(ROOT, "closed", 0, &node) > 0);
	assert_true(make_dir(node, "inside", 0755, &dev) > 0);
}

static void test_owner_text_is_parsed_strictly(void **state)
{
	struct owner o = { 0 };

	assert_true(owner_parse("1:2:100644:3:4", 14, &o));
	assert_int_equal(o.mode, S_IFREG | 0644);
	assert_int_equal(o.rdev_minor, 4);
	assert_false(owner_parse("1:2:100644:3", 12, &o));
	assert_false(owner_parse("1:2:100644:3:4x", 15, &o));
	assert_false(owner_parse("", 0, &o));
	assert_false(owner_parse("1:2:100644:3:4                                                  ", 64, &o));
}

static void test_bad_options_say_why(void **state)
{
	struct virtio_fs_options opt = { .tag = "", .path = "/tmp" };
	struct virtio_device *dev;
	struct loop *loop;
	struct err err;

	assert_int_equal(loop_create(&loop, NULL), 0);
	assert_int_equal(virtio_fs_create(loop, &opt, &dev, &err), -EINVAL);
	opt.tag = "t";
	opt.path = "/nonexistent/folder";
	assert_int_equal(virtio_fs_create(loop, &opt, &dev, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nonexistent/folder"));
	loop_destroy(loop);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_files_are_created_written_and_read),
		T(test_a_megabyte_moves_in_one_request),
		T(test_o_direct_opens_work_at_any_alignment),
		T(test_names_that_lead_outside_are_refused),
		T(test_unknown_nodes_and_handles_are_refused),
		T(test_unmounting_forgets_everything),
		T(test_attributes_can_be_changed),
		T(test_new_objects_belong_to_the_caller),
		T(test_rename_replaces_refuses_and_exchanges),
		T(test_hard_links_share_a_node),
		T(test_folders_are_made_and_removed),
		T(test_big_folders_are_listed_completely),
		T(test_more_nodes_than_descriptors),
		T(test_extended_attributes),
		T(test_posix_locks_hold_between_owners_and_the_host),
		T(test_waiting_for_a_lock_stalls_nobody),
		T(test_flock_belongs_to_the_open_file),
		T(test_space_seek_copy_and_sync),
		T(test_nameless_files_can_get_a_name),
		T(test_access_follows_the_mode),
		T(test_saved_share_goes_on_in_another_process),
		T(test_nothing_is_written_after_a_reset),
		cmocka_unit_test_setup_teardown(test_read_only_share_refuses_every_change,
						setup_read_only, teardown),
		cmocka_unit_test_setup_teardown(test_image_share_needs_no_opens_and_keeps_absent_names,
						setup_read_only, teardown),
		cmocka_unit_test_setup_teardown(test_what_was_read_of_a_read_only_share_is_known,
						setup_read_only, teardown),
		cmocka_unit_test_setup_teardown(test_squashed_owners_and_types_are_remembered,
						setup_squash, teardown),
		cmocka_unit_test(test_owner_text_is_parsed_strictly),
		cmocka_unit_test(test_bad_options_say_why),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
