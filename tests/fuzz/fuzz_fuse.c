/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE requests against a real folder.  A file beside the shared folder must
 * come out of every run unchanged, and nothing may appear there.
 *
 * The input: per request opcode, node, flags, then argument bytes.
 */
#include "os/blob.h"
#include "tests/fuzz/virtio_fuzz.h"
#include "tests/unit/fuse_client.h"
#include "virtio/fs/fs.h"

#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define RUNS_PER_FOLDER 500u
#define FILE_BYTES_MAX (1u << 20)

static char top[64], root[96], secret[96];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void clean_up(void)
{
	if (*top)
		(void)nftw(top, remove_one, 64, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		abort();
}

static void fresh_folder(void)
{
	char path[128];

	clean_up();
	(void)snprintf(top, sizeof(top), "/tmp/roux-fuzz-XXXXXX");
	if (!mkdtemp(top))
		abort();
	(void)snprintf(root, sizeof(root), "%s/share", top);
	(void)snprintf(secret, sizeof(secret), "%s/secret", top);
	put(secret, "secret");
	if (mkdir(root, 0755) < 0)
		abort();
	(void)snprintf(path, sizeof(path), "%s/f", root);
	put(path, "contents");
	(void)snprintf(path, sizeof(path), "%s/d", root);
	(void)!mkdir(path, 0755);
	(void)snprintf(path, sizeof(path), "%s/l", root);
	(void)!symlink("../secret", path);
}

static void check_outside(void)
{
	DIR *dir = opendir(top);
	unsigned entries = 0;
	struct stat st;

	while (readdir(dir))
		entries++;
	(void)closedir(dir);
	/* ".", "..", the share and the secret, which nobody may have linked to. */
	if (entries != 4 || stat(secret, &st) < 0 || st.st_size != 6 || st.st_nlink != 1)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static unsigned runs;
	struct fuzz_input in = { data, len };
	struct virtio_fs_options opt = { .tag = "fuzz", .workers = 1, .fd_budget = 16 };
	const struct rlimit limit = { FILE_BYTES_MAX, FILE_BYTES_MAX };
	struct virtio_device *dev;
	struct fuse_client fc;
	struct blob blob = { 0 };
	struct blob_reader state;
	uint8_t args[512];
	uint64_t node;
	struct drv d;

	if (runs == 0) {
		(void)signal(SIGXFSZ, SIG_IGN);	/* no request may fill the disk */
		(void)setrlimit(RLIMIT_FSIZE, &limit);
		(void)atexit(clean_up);
	}
	if (runs++ % RUNS_PER_FOLDER == 0)
		fresh_folder();
	opt.path = root;
	opt.read_only = len % 5 == 0;
	opt.cache = opt.read_only ? VIRTIO_FS_CACHE_ALWAYS : VIRTIO_FS_CACHE_AUTO;
	opt.owner = len % 3 == 0 ? VIRTIO_FS_OWNER_SQUASH : VIRTIO_FS_OWNER_AUTO;
	drv_init(&d);
	if (virtio_fs_create(d.loop, &opt, &dev, NULL) < 0)
		abort();
	drv_attach(&d, dev);
	(void)drv_start(&d, DRV_FEATURES_ALL);
	fc = (struct fuse_client){ .drv = &d };
	(void)fc_init(&fc);
	(void)fc_lookup(&fc, 1, "f", &node);
	(void)fc_lookup(&fc, 1, "d", &node);
	(void)fc_lookup(&fc, 1, "l", &node);
	for (unsigned i = 0; in.left && i < 24; i++) {
		uint32_t op = fuzz_u8(&in) % 56;
		size_t n;

		node = fuzz_u8(&in) % 8;
		n = fuzz_bytes(&in, args, fuzz_u8(&in));
		if (op == FUSE_SETLKW)	/* would wait, here for ever */
			op = FUSE_SETLK;
		fc.len = fc.data_len = 0;
		fc_arg(&fc, args, n);
		(void)fc_call(&fc, op, node);
	}
	virtio_mmio_pause(d.mmio);
	virtio_mmio_save(d.mmio, &blob);
	virtio_mmio_resume(d.mmio);
	if (len % 2 && blob.len > 4)	/* a damaged state every second time */
		blob.bytes[(data[0] * 256u + data[len - 1]) % blob.len] ^= data[len / 2];
	state = (struct blob_reader){ .at = blob.bytes, .left = blob.len };
	(void)virtio_mmio_restore(d.mmio, &state, NULL);
	blob_finish(&blob);
	drv_pump(&d);
	fuzz_run(&d, in.at, in.left);
	drv_finish(&d);
	check_outside();
	return 0;
}
