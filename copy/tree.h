/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File trees over a stream, as ENTRY, DATA and END frames of abi/agent.h.  Two homes: the
 * agent in a guest, and the command on the host.  Neither trusts the other: what comes in
 * stays below the folder it was meant for, whatever its paths and links say.
 *
 * A folder is sent before and once more after what it holds, because its times change
 * while it is filled.  Modes, times, symbolic links and FIFOs are kept, and owners and
 * set-id bits where that is asked for; devices and sockets are left out, and hard links become
 * files of their own.
 *
 * All functions block on the stream.
 */
#ifndef COPY_TREE_H
#define COPY_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TREE_PATH_MAX 4096u	/* bytes of a path, NUL included */
#define TREE_WHAT_MAX 256u

struct tree_error {
	int error;	/* positive errno */
	char what[TREE_WHAT_MAX];	/* what could not be done, without the reason */
};

/* Input: bytes that were read already, then the stream. */
struct tree_input {
	int fd;
	uint8_t *buf;	/* owned by the caller */
	size_t cap;	/* bytes, at least TREE_BUF_MIN */
	size_t len, at;	/* bytes in it, and of them used */
};

#define TREE_BUF_MIN (128u * 1024u)

/*
 * Sends the file or tree at @path (a symbolic link there is followed) to @fd, END
 * included.  0, or -1 with @ret_error, which the caller passes on as it sees fit.
 */
int tree_send(int fd, const char *path, struct tree_error *ret_error);

/*
 * Receives a tree up to its END.  @path decides as for `docker cp`: a folder takes the
 * tree under @name (which is "" when only its contents were meant), anything else that
 * exists is replaced, and what does not exist is made, in a folder that must exist.
 *
 * 0, or -1 with @ret_error; error is EPIPE when the stream broke, and EPROTO when the
 * sender breaks the protocol.  When the sender says ERROR instead, what it says is in
 * @ret_error.
 */
int tree_receive(struct tree_input *in, const char *path, const char *name, bool keep_owner,
		 struct tree_error *ret_error);

#endif /* COPY_TREE_H */
