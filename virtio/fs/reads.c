/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest has read: 64 pieces of each file, which are as large as the furthest needs, 64 KiB or more.  Of shares
 * that the guest may write to nothing is noted.
 */
#include "virtio/fs/share.h"

#define PIECE_SHIFT 16u
#define PIECES 64u
#define READ_MAX (64ull << 20)	/* bytes; what comes later is not what everybody reads first */

/* Pieces become twice as large. */
static uint64_t fold(uint64_t pieces)
{
	uint64_t folded = 0;

	for (unsigned i = 0; i < PIECES; i += 2)
		folded |= (uint64_t)((pieces >> i & 3) != 0) << (i / 2);
	return folded;
}

void node_was_read(struct share *s, struct node *node, uint64_t off, uint64_t len)
{
	if (!s->read_only || !len)
		return;
	(void)pthread_mutex_lock(&s->lock);
	if (!node->piece_shift)
		node->piece_shift = PIECE_SHIFT;
	for (; (off + len - 1) >> node->piece_shift >= PIECES; node->piece_shift++)
		node->pieces = fold(node->pieces);
	for (uint64_t i = off >> node->piece_shift; i <= (off + len - 1) >> node->piece_shift && s->bytes_read < READ_MAX; i++) {
		s->bytes_read += node->pieces >> i & 1 ? 0 : 1ull << node->piece_shift;
		node->pieces |= 1ull << i;
	}
	(void)pthread_mutex_unlock(&s->lock);
}

void share_reads(struct share *s, virtio_fs_read_fn fn, void *ctx)
{
	char buf[PATH_MAX];

	(void)pthread_mutex_lock(&s->lock);
	for (uint32_t id = 0; id < s->nodes.used; id++) {
		const struct node *n = s->nodes.slot[id];
		const char *path = n && n->pieces ? node_path(s, n, buf) : NULL;

		for (unsigned from = 0, to; path && from < PIECES; from = to + 1) {
			for (to = from; to < PIECES && n->pieces >> to & 1; to++)
				;
			if (to > from)
				fn(ctx, path, (uint64_t)from << n->piece_shift, (uint64_t)(to - from) << n->piece_shift);
		}
	}
	(void)pthread_mutex_unlock(&s->lock);
}

void share_forget_reads(struct share *s)
{
	(void)pthread_mutex_lock(&s->lock);
	for (uint32_t id = 0; id < s->nodes.used; id++) {
		struct node *n = s->nodes.slot[id];

		if (n)
			n->pieces = 0;
	}
	s->bytes_read = 0;
	(void)pthread_mutex_unlock(&s->lock);
}
