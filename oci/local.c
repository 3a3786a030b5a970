/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/local.h"

#include "os/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDEX_DEPTH_MAX 4 /* indexes in indexes */
#define ID_MIN 4 /* digits of an identifier */

/* ---- children ---- */

static int add_manifest(const char *json, size_t len, store_add_fn add, void *ctx)
{
	struct manifest *m = malloc(sizeof(*m));
	int r = m ? 0 : -ENOMEM;

	/* What does not parse leads nowhere. */
	if (m && manifest_parse(json, len, m, NULL) == 0) {
		r = add(ctx, m->config.digest);
		for (size_t i = 0; r == 0 && i < m->nlayers; i++)
			r = add(ctx, m->layer[i].digest);
	}
	free(m);
	return r;
}

static int add_index(const char *json, size_t len, store_add_fn add, void *ctx)
{
	struct index index;
	int r = 0;

	if (manifest_parse_index(json, len, &index, NULL) < 0)
		return 0;
	for (size_t i = 0; r == 0 && i < index.count; i++)
		r = add(ctx, index.entry[i].desc.digest);
	manifest_free_index(&index);
	return r;
}

int local_children(struct store *store, const char *digest, store_add_fn add, void *add_ctx,
		   struct err *err)
{
	enum manifest_kind kind;
	uint64_t size;
	char *json, first;
	size_t len;
	int fd, r = store_size(store, digest, &size, err);

	if (r < 0 || size > LOCAL_JSON_MAX)
		return r;
	/* Layers are not read but for a byte: documents begin with a brace. */
	fd = store_open_object(store, digest, err);
	if (fd < 0)
		return fd;
	r = read(fd, &first, 1) == 1 && (first == '{' || first == ' ' || first == '\n' || first == '\t' || first == '\r');
	close(fd);
	if (!r)
		return 0;
	r = store_read(store, digest, LOCAL_JSON_MAX, &json, &len, err);
	if (r < 0)
		return r;
	if (manifest_kind(json, len, &kind, NULL, NULL) == 0)
		r = kind == MANIFEST_IS_INDEX ? add_index(json, len, add, add_ctx) : add_manifest(json, len, add, add_ctx);
	free(json);
	return r;
}

/* ---- manifests ---- */

static int incomplete(struct err *err, const char *digest)
{
	return err_set(err, -ENOENT, "the image is incomplete: %.19s... is missing in the store; pull it again", digest);
}

/* Follows one index: @desc becomes the entry's. */
static int step(struct store *store, const char *json, size_t len, const char *platform, bool any,
		struct descriptor *desc, struct err *err)
{
	const struct index_entry *e = NULL;
	struct index index;
	uint64_t size;
	int r = manifest_parse_index(json, len, &index, err);

	if (r < 0)
		return r;
	e = manifest_choose(&index, "", platform, &r, any ? NULL : err);
	if (any && (!e || store_size(store, e->desc.digest, &size, NULL) < 0)) {
		e = NULL;
		for (size_t i = 0; !e && i < index.count; i++)
			if (store_size(store, index.entry[i].desc.digest, &size, NULL) == 0)
				e = &index.entry[i];
		r = e ? 0 : incomplete(err, desc->digest);
	}
	if (e)
		*desc = e->desc;
	manifest_free_index(&index);
	return e ? 0 : r;
}

static int find_manifest(struct store *store, const char *digest, const char *platform, bool any,
			 struct manifest *ret_manifest, struct descriptor *ret_desc, struct err *err)
{
	struct descriptor desc = { .size = 0 };
	enum manifest_kind kind;

	if (!store_digest_ok(digest))
		return err_set(err, -EINVAL, "'%.80s' is not a digest", digest);
	memcpy(desc.digest, digest, STORE_DIGEST_SIZE);
	for (int depth = 0; depth < INDEX_DEPTH_MAX; depth++) {
		char *json;
		size_t len;
		int r = store_read(store, desc.digest, LOCAL_JSON_MAX, &json, &len, err);

		if (r == -ENOENT)
			return incomplete(err, desc.digest);
		if (r < 0)
			return r;
		desc.size = len;
		r = manifest_kind(json, len, &kind, desc.type, err);
		if (r == 0 && kind == MANIFEST_IS_INDEX) {
			r = step(store, json, len, platform, any, &desc, err);
			free(json);
			if (r < 0)
				return r;
			continue;
		}
		if (r == 0)
			r = manifest_parse(json, len, ret_manifest, err);
		free(json);
		if (r == 0 && ret_desc)
			*ret_desc = desc;
		return r;
	}
	return err_set(err, -EBADMSG, "the image is damaged: indexes within indexes");
}

int local_manifest(struct store *store, const char *digest, const char *platform,
		   struct manifest *ret_manifest, struct err *err)
{
	return find_manifest(store, digest, platform, false, ret_manifest, NULL, err);
}

int local_any_manifest(struct store *store, const char *digest, struct manifest *ret_manifest,
		       struct descriptor *ret_desc, struct err *err)
{
	return find_manifest(store, digest, LOCAL_PLATFORM, true, ret_manifest, ret_desc, err);
}

int local_complete(struct store *store, const struct manifest *manifest, struct err *err)
{
	uint64_t size;
	int r = store_size(store, manifest->config.digest, &size, err);

	if (r == -ENOENT)
		return incomplete(err, manifest->config.digest);
	for (size_t i = 0; r == 0 && i < manifest->nlayers; i++) {
		r = store_size(store, manifest->layer[i].digest, &size, err);
		if (r == -ENOENT)
			return incomplete(err, manifest->layer[i].digest);
	}
	return r;
}

/* ---- names ---- */

int local_set(struct store *store, const char *name, const struct descriptor *desc, struct err *err)
{
	struct store_ref ref = { .size = desc->size };

	(void)snprintf(ref.name, sizeof(ref.name), "%s", name);
	memcpy(ref.digest, desc->digest, sizeof(ref.digest));
	(void)snprintf(ref.type, sizeof(ref.type), "%s", desc->type[0] ? desc->type : MEDIA_OCI_MANIFEST);
	return store_ref_set(store, LOCAL_KIND, &ref, err);
}

static bool digits_match(const char *digest, const char *digits)
{
	return strncmp(digest + strlen("sha256:"), digits, strlen(digits)) == 0;
}

/* Whether @ref is the image with an identifier that begins with @digits. */
static bool has_id(struct store *store, const struct store_ref *ref, const char *digits)
{
	struct manifest *m;
	struct descriptor desc;
	bool found = digits_match(ref->digest, digits);

	if (found || !(m = malloc(sizeof(*m))))
		return found;
	if (local_any_manifest(store, ref->digest, m, &desc, NULL) == 0)
		found = digits_match(m->config.digest, digits) || digits_match(desc.digest, digits);
	free(m);
	return found;
}

static int find_id(struct store *store, const char *digits, struct store_ref *ret_ref, struct err *err)
{
	const struct store_ref *found = NULL;
	struct store_ref *refs;
	size_t n;
	int r = store_ref_list(store, LOCAL_KIND, &refs, &n, err);

	if (r < 0)
		return r;
	r = -ENOENT;
	for (size_t i = 0; i < n; i++) {
		if (!has_id(store, &refs[i], digits))
			continue;
		if (found && strcmp(found->digest, refs[i].digest) != 0) {
			r = err_set(err, -EINVAL, "'%.64s' means several images: write more of its digits", digits);
			break;
		}
		found = &refs[i];
		r = 0;
	}
	if (r == 0)
		*ret_ref = *found;
	free(refs);
	return r;
}

int local_find(struct store *store, const char *name, struct store_ref *ret_ref, struct err *err)
{
	const char *digits = strncmp(name, "sha256:", 7) == 0 ? name + 7 : name;
	size_t len = strlen(digits);
	bool may_be_id = len >= ID_MIN && len <= 64 && strspn(digits, "0123456789abcdef") == len;
	struct reference ref;
	char full[STORE_NAME_MAX];
	int r = digits != name || len == 64 ? -EINVAL : reference_parse(name, &ref, err);

	if (r < 0 && !may_be_id)
		return digits != name ? err_set(err, r, "'%.80s' is not an identifier of an image", name) : r;
	if (r == 0) {
		reference_name(&ref, full);
		r = store_ref_get(store, LOCAL_KIND, full, ret_ref, err);
		if (r == 0 || (r != -ENOENT))
			return r;
	}
	if (may_be_id) {
		r = find_id(store, digits, ret_ref, err);
		if (r != -ENOENT)
			return r;
	}
	return err_set(err, -ENOENT, "there is no image '%.120s' here: 'roux pull' gets it, 'roux images' lists what there is",
		       name);
}

int local_find_leased(struct store *store, struct store_lease *lease, const char *name,
		      struct store_ref *ret_ref, struct err *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	int r = m ? local_find(store, name, ret_ref, err) : err_set(err, -ENOMEM, "out of memory for the image");

	/* In this order: what was collected before the lease is missed after it. */
	if (r == 0)
		r = store_lease_add(lease, ret_ref->digest, err);
	if (r == 0)
		r = local_any_manifest(store, ret_ref->digest, m, NULL, err);
	if (r == 0)
		r = local_complete(store, m, err);
	free(m);
	return r;
}
