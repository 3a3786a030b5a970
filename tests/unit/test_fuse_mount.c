/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE server against this host's own kernel: a share is mounted through
 * /dev/fuse and ordinary programs work in it.  Needs root and /dev/fuse.
 */
#include "virtio/fs/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include <cmocka.h>

#define BUFFER (FUSE_DATA_MAX + 8192u)
#define SERVERS 2	/* threads, as two requests may be performed at once */

static char top[64], mnt[96];
static struct share *share;
static pthread_t server[SERVERS];
static int fuse_fd;

/* One request: the buffers of a chain are ours instead of a guest's. */
static void serve_one(struct chain *chain, struct request *req, size_t len)
{
	int64_t n;

	chain->iov[0].iov_len = len;
	chain->read_len = (uint32_t)len;
	if (request_read(req, share, chain) < 0)
		abort();
	req->may_wait = true;
	while ((n = request_perform(req)) == REQUEST_LOCK_BUSY)
		(void)usleep(1000);
	if (n > 0 && write(fuse_fd, chain->iov[1].iov_base, (size_t)n) < 0 && errno != ENOENT)
		abort();
}

static void *serve(void *arg)
{
	static struct chain chains[SERVERS];
	struct chain *chain = &chains[(size_t)arg];
	struct request req;
	ssize_t len;

	*chain = (struct chain){ .nread = 1, .nwrite = 1, .write_len = BUFFER };
	chain->iov[0].iov_base = malloc(BUFFER);
	chain->iov[1] = (struct iovec){ .iov_base = malloc(BUFFER), .iov_len = BUFFER };
	for (;;) {
		len = read(fuse_fd, chain->iov[0].iov_base, BUFFER);
		if (len > 0)
			serve_one(chain, &req, (size_t)len);
		else if (errno == ENODEV)	/* unmounted */
			break;
	}
	free(chain->iov[0].iov_base);
	free(chain->iov[1].iov_base);
	return NULL;
}

static void mount_share(const struct virtio_fs_options *opt)
{
	struct virtio_fs_options o = *opt;
	char root[96], text[128];

	(void)snprintf(root, sizeof(root), "%s/share", top);
	o.path = root;
	assert_int_equal(share_create(&o, &share, NULL), 0);
	fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	assert_true(fuse_fd >= 0);
	(void)snprintf(text, sizeof(text),
		       "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", fuse_fd);
	assert_int_equal(mount("share", mnt, "fuse", MS_NODEV | MS_NOSUID, text), 0);
	for (size_t i = 0; i < SERVERS; i++)
		assert_int_equal(pthread_create(&server[i], NULL, serve, (void *)i), 0);
}

static void unmount_share(void)
{
	assert_int_equal(umount2(mnt, MNT_DETACH), 0);
	for (size_t i = 0; i < SERVERS; i++)
		assert_int_equal(pthread_join(server[i], NULL), 0);
	(void)close(fuse_fd);
	share_destroy(share);
}

static void run(const char *script)
{
	char line[4096];

	(void)snprintf(line, sizeof(line), "set -e; cd %s; %s", mnt, script);
	if (system(line) != 0)	/* the scripts are ours: no input of anybody reaches the shell */
		fail_msg("failed: %s", script);
}

static void everyday_work(void)
{
	run("cp -a /usr/include/linux copy; diff -r /usr/include/linux copy");
	run("tar cf all.tar copy; mkdir again; tar xf all.tar -C again; diff -r copy again/copy");
	run("mv copy moved; test ! -e copy; ln moved/fuse.h hard; test $(stat -c %h hard) = 2");
	run("ln -s moved/fuse.h soft; cmp soft hard; rm hard; cmp soft /usr/include/linux/fuse.h");
	run("for i in $(seq 500); do echo $i >many-$i; done; cat many-* | sort -n >sum; "
	    "seq 500 | cmp - sum; rm many-*");
	run("dd if=/dev/urandom of=../blob bs=1M count=8 2>/dev/null; cp ../blob blob; cmp blob ../blob; "
	    "dd if=blob of=back bs=1M iflag=direct oflag=direct 2>/dev/null; cmp back blob");
	run("truncate -s 1G sparse; test $(stat -c %s sparse) = 1073741824; fallocate -p -l 4096 blob; rm sparse");
	run("exec 9>lock; flock -x 9; ! flock -n -x lock true; flock -u 9; flock -n -x lock true");
	run("echo '#include <stdio.h>\nint main(void){puts(\"built\");}' >a.c; cc -o a a.c; test \"$(./a)\" = built");
	run("(sleep 0.1; rm open) & echo kept >open; exec 8<open; wait; test \"$(cat <&8)\" = kept");
	run("mkdir -p deep/a/b/c/d/e; chmod 700 deep/a; test $(stat -c %a deep/a) = 700; touch -d @1000 deep; "
	    "test $(stat -c %Y deep) = 1000");
	run("rm -rf moved again all.tar deep; find . | wc -l >/dev/null; df . >/dev/null; sync -f .");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int setup(void **state)
{
	char root[96];

	(void)snprintf(top, sizeof(top), "/tmp/roux-mount-XXXXXX");
	assert_non_null(mkdtemp(top));
	(void)snprintf(root, sizeof(root), "%s/share", top);
	(void)snprintf(mnt, sizeof(mnt), "%s/mnt", top);
	assert_int_equal(mkdir(root, 0755), 0);
	return mkdir(mnt, 0755);
}

static int teardown(void **state)
{
	return nftw(top, remove_one, 64, FTW_DEPTH | FTW_PHYS);
}

static void test_programs_work_with_host_owners(void **state)
{
	mount_share(&(struct virtio_fs_options){ .owner = VIRTIO_FS_OWNER_HOST });
	everyday_work();
	run("touch theirs; chown 12:34 theirs; test $(stat -c %u:%g ../share/theirs) = 12:34");
	unmount_share();
}

static void test_programs_work_squashed_with_few_descriptors(void **state)
{
	mount_share(&(struct virtio_fs_options){ .owner = VIRTIO_FS_OWNER_SQUASH, .fd_budget = 64 });
	everyday_work();
	run("touch theirs; chown 12:34 theirs; test $(stat -c %u:%g theirs) = 12:34; "
	    "test $(stat -c %u:%g ../share/theirs) = 0:0; mknod n c 1 3; test -c n; test -f ../share/n");
	unmount_share();
}

static void test_programs_work_with_writeback(void **state)
{
	mount_share(&(struct virtio_fs_options){ .writeback = true });
	everyday_work();
	run("for i in $(seq 300); do echo line $i >>log; done; test $(wc -l <log) = 300");
	unmount_share();
}

static void test_image_share_reads_everything_and_changes_nothing(void **state)
{
	char line[256];

	(void)snprintf(line, sizeof(line), "cp -a /usr/include/linux %s/share/linux", top);
	assert_int_equal(system(line), 0);
	mount_share(&(struct virtio_fs_options){ .read_only = true, .cache = VIRTIO_FS_CACHE_ALWAYS });
	run("diff -r linux /usr/include/linux; diff -r linux /usr/include/linux; test ! -e absent");
	run("! touch new 2>/dev/null; ! rm -f linux/fuse.h 2>/dev/null; ! chmod 777 linux 2>/dev/null");
	unmount_share();
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_programs_work_with_host_owners),
		T(test_programs_work_squashed_with_few_descriptors),
		T(test_programs_work_with_writeback),
		T(test_image_share_reads_everything_and_changes_nothing),
	};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0) {
		(void)puts("skipped: mounting needs root and /dev/fuse");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
