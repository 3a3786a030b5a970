/* SPDX-License-Identifier: Apache-2.0 */
#include "block/file_io.h"

#include "block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

typedef ssize_t (*vec_fn)(int fd, const struct iovec *iov, int niov, off_t off);

/* Drops @n bytes from the front of a vector; returns the entries left. */
static unsigned advance(struct iovec **iov, unsigned niov, size_t n)
{
	while (niov && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		niov--;
	}
	if (niov) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
	return niov;
}

/* Carries on where a short transfer of @n bytes stopped.  Rare, so the vector is copied. */
static int finish_short(int fd, uint64_t off, const struct iovec *iov, unsigned niov, size_t n,
			vec_fn fn, bool zero_at_end)
{
	struct iovec copy[BLOCK_IOV_MAX], *v = copy;
	ssize_t got;

	memcpy(copy, iov, niov * sizeof(*iov));
	for (;;) {
		off += n;
		niov = advance(&v, niov, n);
		if (!niov)
			return 0;
		do
			got = fn(fd, v, (int)niov, (off_t)off);
		while (got < 0 && errno == EINTR);
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n = (size_t)got;
	}
	if (!zero_at_end)
		return -EIO;
	for (unsigned i = 0; i < niov; i++)
		memset(v[i].iov_base, 0, v[i].iov_len);
	return 0;
}

static int transfer(int fd, uint64_t off, const struct iovec *iov, unsigned niov, vec_fn fn,
		    bool zero_at_end)
{
	size_t want = 0;
	ssize_t got;

	for (unsigned i = 0; i < niov; i++)
		want += iov[i].iov_len;
	if (!want)
		return 0;
	do
		got = fn(fd, iov, (int)niov, (off_t)off);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	if ((size_t)got == want)
		return 0;
	return finish_short(fd, off, iov, niov, (size_t)got, fn, zero_at_end);
}

int block_file_readv(int fd, uint64_t off, const struct iovec *iov, unsigned niov)
{
	return transfer(fd, off, iov, niov, preadv, true);
}

int block_file_writev(int fd, uint64_t off, const struct iovec *iov, unsigned niov)
{
	return transfer(fd, off, iov, niov, pwritev, false);
}

int block_file_punch(int fd, uint64_t off, uint64_t len)
{
	int r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);

	return r < 0 ? -errno : 0;
}

int block_file_lock(int fd, bool exclusive)
{
	/* Open-file-description locks: another descriptor of this process that is
	 * closed does not drop them, as it would drop POSIX locks. */
	struct flock lk = { .l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &lk) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}
