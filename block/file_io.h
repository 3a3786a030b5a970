/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact reads and writes on a descriptor, shared by the back ends that keep
 * bytes in a file.  Private to block/.
 */
#ifndef BLOCK_FILE_IO_H
#define BLOCK_FILE_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * Moves all of @iov (borrowed, at most BLOCK_IOV_MAX entries, left unchanged) at
 * file offset @off, going on after short transfers.  A read that meets the end
 * of the file gives zeroes for the rest.  Returns 0 or a negative errno; a
 * write that makes no progress is -EIO.
 */
int block_file_readv(int fd, uint64_t off, const struct iovec *iov, unsigned niov);
int block_file_writev(int fd, uint64_t off, const struct iovec *iov, unsigned niov);

/* Makes [@off, @off + @len) a hole.  0, -EOPNOTSUPP or another errno. */
int block_file_punch(int fd, uint64_t off, uint64_t len);

/*
 * Locks the whole file for the life of the open file description: @exclusive
 * against everybody, else only against exclusive lockers.  0, or -EBUSY.
 */
int block_file_lock(int fd, bool exclusive);

#endif /* BLOCK_FILE_IO_H */
