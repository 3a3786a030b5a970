/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A FUSE client for tests, on top of the tiny virtio driver: builds a request
 * in guest memory, sends it, hands back the reply.
 */
#ifndef TESTS_FUSE_CLIENT_H
#define TESTS_FUSE_CLIENT_H

#include "tests/unit/virtio_driver.h"

#include <errno.h>
#include <linux/fuse.h>

#define FUSE_REQ DRV_DATA	/* guest addresses */
#define FUSE_IN_DATA (DRV_DATA + 0x100000u)
#define FUSE_REPLY (DRV_DATA + 0x200000u)
#define FUSE_REPLY_MAX 0x110000u
#define FUSE_UNIQUE 0x1234u

struct fuse_client {
	struct drv *drv;
	uint32_t uid, gid;
	size_t len;	/* bytes of arguments so far */
	size_t data_len;	/* bytes at FUSE_IN_DATA, sent after the arguments */
};

static inline void fc_arg(struct fuse_client *c, const void *bytes, size_t len)
{
	drv_put(c->drv, FUSE_REQ + sizeof(struct fuse_in_header) + c->len, bytes, len);
	c->len += len;
}

static inline void fc_str(struct fuse_client *c, const char *s)
{
	fc_arg(c, s, strlen(s) + 1);
}

static inline void fc_begin(struct fuse_client *c, uint32_t op, uint64_t node)
{
	const struct fuse_in_header h = {
		.len = (uint32_t)(sizeof(h) + c->len + c->data_len), .opcode = op,
		.unique = FUSE_UNIQUE, .nodeid = node, .uid = c->uid, .gid = c->gid, .pid = 1 };

	drv_put(c->drv, FUSE_REQ, &h, sizeof(h));
}

/* Fills the chain's buffers; returns their number. */
static inline unsigned fc_segs(struct fuse_client *c, uint32_t op, uint64_t node, struct drv_seg seg[4])
{
	unsigned n = 0;

	fc_begin(c, op, node);
	seg[n++] = (struct drv_seg){ FUSE_REQ, sizeof(struct fuse_in_header), false };
	if (c->len)
		seg[n++] = (struct drv_seg){ FUSE_REQ + sizeof(struct fuse_in_header), (uint32_t)c->len,
					     false };
	if (c->data_len)
		seg[n++] = (struct drv_seg){ FUSE_IN_DATA, (uint32_t)c->data_len, false };
	seg[n++] = (struct drv_seg){ FUSE_REPLY, FUSE_REPLY_MAX, true };
	c->len = c->data_len = 0;
	return n;
}

static inline const struct fuse_out_header *fc_header(struct fuse_client *c)
{
	return (const struct fuse_out_header *)(void *)(c->drv->ram + FUSE_REPLY);
}

/* Sends what was put together.  Returns the bytes of payload, or the negative errno. */
static inline int fc_call(struct fuse_client *c, uint32_t op, uint64_t node)
{
	struct drv_seg seg[4];
	unsigned n = fc_segs(c, op, node, seg);
	int64_t len = drv_request(c->drv, 1, seg, n);

	if (len == 0)
		return 0;
	if (len < (int64_t)sizeof(struct fuse_out_header) || fc_header(c)->len != len ||
	    fc_header(c)->unique != FUSE_UNIQUE)
		return -EBADMSG;
	return fc_header(c)->error ? fc_header(c)->error : (int)(len - 16);
}

/* The payload of the last reply. */
static inline void *fc_out(struct fuse_client *c)
{
	return c->drv->ram + FUSE_REPLY + sizeof(struct fuse_out_header);
}

static inline int fc_init(struct fuse_client *c)
{
	const struct fuse_init_in in = { .major = 7, .minor = 38, .max_readahead = 1u << 20,
					 .flags = UINT32_MAX };

	fc_arg(c, &in, sizeof(in));
	return fc_call(c, FUSE_INIT, 0);
}

/* Node of @name; 0 when there is none. */
static inline int fc_lookup(struct fuse_client *c, uint64_t dir, const char *name, uint64_t *ret_node)
{
	int r;

	*ret_node = 0;
	fc_str(c, name);
	r = fc_call(c, FUSE_LOOKUP, dir);
	if (r >= 0)
		*ret_node = ((struct fuse_entry_out *)fc_out(c))->nodeid;
	return r;
}

static inline int fc_open(struct fuse_client *c, uint32_t op, uint64_t node, uint32_t flags,
			  uint64_t *ret_fh)
{
	const struct fuse_open_in in = { .flags = flags };
	int r;

	*ret_fh = 0;
	fc_arg(c, &in, sizeof(in));
	r = fc_call(c, op, node);
	if (r >= 0)
		*ret_fh = ((struct fuse_open_out *)fc_out(c))->fh;
	return r;
}

static inline int fc_create(struct fuse_client *c, uint64_t dir, const char *name, uint32_t flags,
			    uint32_t mode, uint64_t *ret_node, uint64_t *ret_fh)
{
	const struct fuse_create_in in = { .flags = flags, .mode = mode };
	int r;

	*ret_node = *ret_fh = 0;
	fc_arg(c, &in, sizeof(in));
	fc_str(c, name);
	r = fc_call(c, FUSE_CREATE, dir);
	if (r >= 0) {
		const struct fuse_entry_out *e = fc_out(c);

		*ret_node = e->nodeid;
		*ret_fh = ((const struct fuse_open_out *)(e + 1))->fh;
	}
	return r;
}

static inline int fc_read(struct fuse_client *c, uint64_t node, uint64_t fh, uint64_t off, uint32_t size)
{
	const struct fuse_read_in in = { .fh = fh, .offset = off, .size = size };

	fc_arg(c, &in, sizeof(in));
	return fc_call(c, FUSE_READ, node);
}

static inline int fc_write(struct fuse_client *c, uint64_t node, uint64_t fh, uint64_t off,
			   const void *bytes, uint32_t size)
{
	const struct fuse_write_in in = { .fh = fh, .offset = off, .size = size };

	fc_arg(c, &in, sizeof(in));
	drv_put(c->drv, FUSE_IN_DATA, bytes, size);
	c->data_len = size;
	return fc_call(c, FUSE_WRITE, node);
}

static inline int fc_release(struct fuse_client *c, uint32_t op, uint64_t node, uint64_t fh)
{
	const struct fuse_release_in in = { .fh = fh };

	fc_arg(c, &in, sizeof(in));
	return fc_call(c, op, node);
}

static inline void fc_forget(struct fuse_client *c, uint64_t node, uint64_t n)
{
	const struct fuse_forget_in in = { .nlookup = n };

	fc_arg(c, &in, sizeof(in));
	(void)fc_call(c, FUSE_FORGET, node);
}

#endif /* TESTS_FUSE_CLIENT_H */
