/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/bundle.h"

#include "oci/local.h"
#include "os/err.h"

#include <archive.h>
#include <archive_entry.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEP (256u * 1024u)

struct save {
	struct store *store;
	struct archive *tar;
	char (*done)[STORE_DIGEST_SIZE];	/* objects written, owned */
	size_t ndone, cap;
	cJSON *index, *docker;	/* lists of index.json and manifest.json, owned */
	struct err *err;
};

static int tar_failed(struct save *s)
{
	return err_set(s->err, -EIO, "cannot write the archive: %.150s", archive_error_string(s->tar));
}

/* The header of a file.  Times are zero: the same images give the same bytes. */
static int add_header(struct save *s, const char *name, uint64_t size)
{
	struct archive_entry *e = archive_entry_new();
	int r;

	if (!e)
		return err_set(s->err, -ENOMEM, "out of memory for the archive");
	archive_entry_set_pathname(e, name);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 0644);
	archive_entry_set_size(e, (la_int64_t)size);
	archive_entry_set_mtime(e, 0, 0);
	r = archive_write_header(s->tar, e) == ARCHIVE_OK ? 0 : tar_failed(s);
	archive_entry_free(e);
	return r;
}

static int add_text(struct save *s, const char *name, const char *text)
{
	int r = add_header(s, name, strlen(text));

	if (r == 0 && archive_write_data(s->tar, text, strlen(text)) < 0)
		r = tar_failed(s);
	return r;
}

static int copy_file(struct save *s, int fd)
{
	uint8_t *buf = malloc(STEP);
	ssize_t n = 0;
	int r = buf ? 0 : err_set(s->err, -ENOMEM, "out of memory for the archive");

	while (r == 0 && ((n = read(fd, buf, STEP)) > 0 || (n < 0 && errno == EINTR)))
		if (n > 0 && archive_write_data(s->tar, buf, (size_t)n) < 0)
			r = tar_failed(s);
	if (r == 0 && n < 0)
		r = err_set(s->err, -errno, "cannot read the store: %s", strerror(errno));
	free(buf);
	return r;
}

/* 1: it was written before. */
static int remember(struct save *s, const char *digest)
{
	for (size_t i = 0; i < s->ndone; i++)
		if (strcmp(s->done[i], digest) == 0)
			return 1;
	if (s->ndone == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 64;
		void *more = realloc(s->done, cap * sizeof(*s->done));

		if (!more)
			return err_set(s->err, -ENOMEM, "out of memory for the archive");
		s->done = more;
		s->cap = cap;
	}
	memcpy(s->done[s->ndone++], digest, STORE_DIGEST_SIZE);
	return 0;
}

/* An object with all it leads to; a store_add_fn.  What is not here is left out. */
static int add_object(void *ctx, const char *digest)
{
	struct save *s = ctx;
	char name[MANIFEST_NAME_MAX];
	uint64_t size;
	int fd, r = store_size(s->store, digest, &size, s->err);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = remember(s, digest);
	if (r != 0)
		return r < 0 ? r : 0;
	fd = store_open_object(s->store, digest, s->err);
	if (fd < 0)
		return fd;
	manifest_blob_name(digest, name);
	r = add_header(s, name, size);
	if (r == 0)
		r = copy_file(s, fd);
	close(fd);
	return r < 0 ? r : local_children(s->store, digest, add_object, s, s->err);
}

static void add_to_index(struct save *s, const struct store_ref *ref, const struct reference *name)
{
	cJSON *o = cJSON_CreateObject(), *notes;

	cJSON_AddStringToObject(o, "mediaType", ref->type);
	cJSON_AddStringToObject(o, "digest", ref->digest);
	cJSON_AddNumberToObject(o, "size", (double)ref->size);
	notes = cJSON_AddObjectToObject(o, "annotations");
	cJSON_AddStringToObject(notes, "io.containerd.image.name", ref->name);
	if (name->tag[0])
		cJSON_AddStringToObject(notes, "org.opencontainers.image.ref.name", name->tag);
	cJSON_AddItemToArray(s->index, o);
}

static void add_to_docker(struct save *s, const struct manifest *m, const struct reference *name)
{
	cJSON *o = cJSON_CreateObject(), *list;
	char text[STORE_NAME_MAX], blob[MANIFEST_NAME_MAX];

	manifest_blob_name(m->config.digest, blob);
	cJSON_AddStringToObject(o, "Config", blob);
	list = cJSON_AddArrayToObject(o, "RepoTags");
	if (name->tag[0]) {
		reference_familiar(name, text);
		cJSON_AddItemToArray(list, cJSON_CreateString(text));
	}
	list = cJSON_AddArrayToObject(o, "Layers");
	for (size_t i = 0; i < m->nlayers; i++) {
		manifest_blob_name(m->layer[i].digest, blob);
		cJSON_AddItemToArray(list, cJSON_CreateString(blob));
	}
	cJSON_AddItemToArray(s->docker, o);
}

static int add_image(struct save *s, const struct store_ref *ref)
{
	struct manifest *m = calloc(1, sizeof(*m));
	struct reference name;
	int r = m ? reference_parse(ref->name, &name, s->err) : err_set(s->err, -ENOMEM, "out of memory for the archive");

	if (r == 0)
		r = local_any_manifest(s->store, ref->digest, m, NULL, s->err);
	if (r == 0)
		r = local_complete(s->store, m, s->err);
	if (r == 0)
		r = add_object(s, ref->digest);
	if (r == 0) {
		add_to_index(s, ref, &name);
		add_to_docker(s, m, &name);
	}
	free(m);
	return r;
}

static int add_lists(struct save *s)
{
	cJSON *doc = cJSON_CreateObject();
	char *index, *docker;
	int r;

	cJSON_AddNumberToObject(doc, "schemaVersion", 2);
	cJSON_AddStringToObject(doc, "mediaType", MEDIA_OCI_INDEX);
	cJSON_AddItemToObject(doc, "manifests", s->index);
	s->index = NULL;
	index = cJSON_PrintUnformatted(doc);
	docker = cJSON_PrintUnformatted(s->docker);
	r = index && docker ? 0 : err_set(s->err, -ENOMEM, "out of memory for the archive");
	if (r == 0)
		r = add_text(s, "index.json", index);
	if (r == 0)
		r = add_text(s, "manifest.json", docker);
	if (r == 0)
		r = add_text(s, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
	free(index);
	free(docker);
	cJSON_Delete(doc);
	return r;
}

int bundle_save(struct store *store, const struct store_ref *refs, size_t count, int fd,
		 struct err *err)
{
	struct save s = { .store = store, .err = err, .index = cJSON_CreateArray(), .docker = cJSON_CreateArray(),
			  .tar = archive_write_new() };
	int r = 0;

	if (!s.tar || !s.index || !s.docker)
		r = err_set(err, -ENOMEM, "out of memory for the archive");
	if (r == 0 && (archive_write_set_format_pax_restricted(s.tar) != ARCHIVE_OK ||
		       archive_write_set_bytes_in_last_block(s.tar, 1) != ARCHIVE_OK || archive_write_open_fd(s.tar, fd) != ARCHIVE_OK))
		r = tar_failed(&s);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = add_image(&s, &refs[i]);
	if (r == 0)
		r = add_lists(&s);
	if (r == 0 && archive_write_close(s.tar) != ARCHIVE_OK)
		r = tar_failed(&s);
	if (s.tar)
		archive_write_free(s.tar);
	cJSON_Delete(s.index);
	cJSON_Delete(s.docker);
	free(s.done);
	return r;
}
