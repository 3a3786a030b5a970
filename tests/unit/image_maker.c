/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/image_maker.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define LAYER_CAP (4u << 20)

static void hex_of(const void *data, size_t len, char ret[SHA256_HEX_SIZE])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, data, len);
	sha256_finish_hex(&hash, ret);
}

static struct archive *new_tar(enum maker_filter filter)
{
	struct archive *a = archive_write_new();

	archive_write_set_format_pax_restricted(a);
	if (filter == MAKER_GZIP)
		archive_write_add_filter_gzip(a);
	if (filter == MAKER_ZSTD)
		archive_write_add_filter_zstd(a);
	return a;
}

static unsigned type_of(char type)
{
	switch (type) {
	case 'd': return AE_IFDIR;
	case 'l': return AE_IFLNK;
	case 'c': return AE_IFCHR;
	case 'b': return AE_IFBLK;
	case 'p': return AE_IFIFO;
	default: return AE_IFREG;
	}
}

static void put_entry(struct archive *a, const struct maker_entry *m)
{
	struct archive_entry *e = archive_entry_new();
	size_t len = m->type == 'f' && m->data ? strlen(m->data) : 0;

	archive_entry_set_pathname(e, m->name);
	archive_entry_set_uid(e, m->uid);
	archive_entry_set_gid(e, m->gid);
	archive_entry_set_mtime(e, 1000000000, 0);
	if (m->type == 'h')
		archive_entry_set_hardlink(e, m->data);
	else
		archive_entry_set_filetype(e, type_of(m->type));
	if (m->type == 'l')
		archive_entry_set_symlink(e, m->data);
	if (m->type == 'c' || m->type == 'b') {
		unsigned major = 1, minor = 3;

		assert_true(!m->data || sscanf(m->data, "%u:%u", &major, &minor) == 2);
		archive_entry_set_rdevmajor(e, major);
		archive_entry_set_rdevminor(e, minor);
	}
	archive_entry_set_perm(e, m->mode ? m->mode : 0755);
	archive_entry_set_size(e, (la_int64_t)len);
	if (m->xattr) {
		const char *eq = strchr(m->xattr, '=');
		char name[64] = "";

		memcpy(name, m->xattr, (size_t)(eq - m->xattr));
		archive_entry_xattr_add_entry(e, name, eq + 1, strlen(eq + 1));
	}
	/* A warning: a name that is no text in this locale, written as its bytes. */
	assert_true(archive_write_header(a, e) >= ARCHIVE_WARN);
	if (len)
		assert_int_equal(archive_write_data(a, m->data, len), len);
	archive_entry_free(e);
}

static struct maker_blob make(const struct maker_entry *entries, enum maker_filter filter)
{
	struct maker_blob blob = { .data = malloc(LAYER_CAP) };
	struct archive *a = new_tar(filter);

	assert_int_equal(archive_write_open_memory(a, blob.data, LAYER_CAP, &blob.len), ARCHIVE_OK);
	for (; entries->name; entries++)
		put_entry(a, entries);
	assert_int_equal(archive_write_close(a), ARCHIVE_OK);
	archive_write_free(a);
	hex_of(blob.data, blob.len, blob.hex);
	return blob;
}

struct maker_blob maker_layer(const struct maker_entry *entries, enum maker_filter filter)
{
	struct maker_blob plain = make(entries, MAKER_NONE), blob = make(entries, filter);

	memcpy(blob.diff_hex, plain.hex, sizeof(plain.hex));
	maker_free(&plain);
	return blob;
}

void maker_free(struct maker_blob *blob)
{
	free(blob->data);
	blob->data = NULL;
}

void maker_write(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static char *config_json(const struct maker_blob *layers, size_t count, const char *config,
			 const char *arch, bool wrong)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	fprintf(f, "{\"os\":\"linux\",\"architecture\":\"%s\",\"config\":%s,\"rootfs\":{\"type\":\"layers\","
		"\"diff_ids\":[", arch, config ? config : "{}");
	for (size_t i = 0; i < count; i++)
		fprintf(f, "%s\"sha256:%s\"", i ? "," : "", wrong ? layers[i].hex : layers[i].diff_hex);
	fprintf(f, "]}}");
	fclose(f);
	return text;
}

/* Writes a blob under its digest, which is returned. */
static void put_blob(const char *dir, const char *text, size_t len, char ret_hex[SHA256_HEX_SIZE])
{
	char path[512];

	hex_of(text, len, ret_hex);
	snprintf(path, sizeof(path), "%s/blobs/sha256/%s", dir, ret_hex);
	maker_write(path, text, len);
}

static void put_layer(const char *dir, const struct maker_blob *layer,
		      const struct maker_faults *faults)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/blobs/sha256/%s", dir, layer->hex);
	if (faults->missing_layer)
		return;
	if (faults->flip_layer)
		layer->data[layer->len / 2] ^= 0x55;
	maker_write(path, layer->data, faults->cut_layer ? layer->len / 2 : layer->len);
}

void maker_layout(const char *path, const struct maker_blob *layers, size_t count,
		  const char *config, const struct maker_faults *faults)
{
	static const struct maker_faults none;
	char name[512], hex[SHA256_HEX_SIZE], *text, *json;
	const char *arch = faults && faults->arch ? faults->arch : "amd64";
	size_t size;
	FILE *f;

	if (!faults)
		faults = &none;
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(name, sizeof(name), "%s/blobs", path);
	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(name, sizeof(name), "%s/blobs/sha256", path);
	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(name, sizeof(name), "%s/oci-layout", path);
	maker_write(name, "{\"imageLayoutVersion\":\"1.0.0\"}", 30);

	json = config_json(layers, count, config, arch, faults->wrong_diff_id);
	put_blob(path, json, strlen(json), hex);
	f = open_memstream(&text, &size);
	fprintf(f, "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:%s\",\"size\":%zu},\"layers\":[", hex,
		strlen(json));
	for (size_t i = 0; i < count; i++)
		fprintf(f, "%s{\"digest\":\"sha256:%s\",\"size\":%zu}", i ? "," : "", layers[i].hex, layers[i].len);
	fprintf(f, "]}");
	fclose(f);
	for (size_t i = 0; i < count; i++) {
		struct maker_blob layer = layers[i];

		put_layer(path, &layer, faults);
		if (faults->wrong_layer_digest) {	/* other, but sound content */
			static const struct maker_entry other[] = { { "x", 'f', "x", 0, 0, 0, NULL }, { 0 } };
			struct maker_blob b = make(other, MAKER_GZIP);

			memcpy(b.hex, layers[i].hex, sizeof(b.hex));
			put_layer(path, &b, &none);
			maker_free(&b);
		}
	}
	put_blob(path, text, strlen(text), hex);
	snprintf(name, sizeof(name), "%s/index.json", path);
	f = fopen(name, "w");
	fprintf(f, "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1"
		"+json\",\"digest\":\"sha256:%s\",\"size\":%zu,\"platform\":{\"os\":\"linux\",\"architecture\":\"%s\"},"
		"\"annotations\":{\"org.opencontainers.image.ref.name\":\"latest\"}}]}", hex, strlen(text), arch);
	fclose(f);
	free(text);
	free(json);
}

void maker_tar_of(const char *dir, const char *path, enum maker_filter filter)
{
	char command[1200];

	snprintf(command, sizeof(command), "tar -C '%s' %s -cf '%s' .", dir,
		 filter == MAKER_GZIP ? "-z" : "", path);
	assert_int_equal(system(command), 0);
}

void maker_docker_archive(const char *path, const struct maker_blob *layers, size_t count,
			  int linked)
{
	char *config = config_json(layers, count, "{\"Cmd\":[\"sh\"],\"User\":\"app\"}", "amd64", false);
	char hex[SHA256_HEX_SIZE], dir[512], name[1024], command[1200];
	FILE *f;

	snprintf(dir, sizeof(dir), "%s.tree", path);
	assert_int_equal(mkdir(dir, 0755), 0);
	hex_of(config, strlen(config), hex);
	snprintf(name, sizeof(name), "%s/%s.json", dir, hex);
	maker_write(name, config, strlen(config));
	snprintf(name, sizeof(name), "%s/manifest.json", dir);
	f = fopen(name, "w");
	fprintf(f, "[{\"Config\":\"%s.json\",\"RepoTags\":[\"test:v1\"],\"Layers\":[", hex);
	for (size_t i = 0; i < count; i++)
		fprintf(f, "%s\"l%zu/layer.tar\"", i ? "," : "", i);
	fprintf(f, "]}]");
	fclose(f);
	for (size_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s/l%zu", dir, i);
		assert_int_equal(mkdir(name, 0755), 0);
		snprintf(name, sizeof(name), "%s/l%zu/layer.tar", dir, i);
		if (linked && i > 0)
			assert_int_equal(symlink("../l0/layer.tar", name), 0);
		else
			maker_write(name, layers[i].data, layers[i].len);
	}
	maker_tar_of(dir, path, MAKER_NONE);
	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	assert_int_equal(system(command), 0);
	free(config);
}
