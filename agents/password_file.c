#include "agents/password_file.h"

#include <argon2.h>
#include <crypt.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGON2ID "$argon2id$"
#define BINDING "binding="
/* Nobody's: users that are not there take as long to be refused as others. */
#define NO_USER "$6$flywheel.nobody$"

/* Takes as long whatever they hold. */
static bool same(const char *a, const char *b)
{
	size_t len = strlen(a);
	unsigned char differ = 0;

	if (strlen(b) != len) {
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		differ |= (unsigned char)(a[i] ^ b[i]);
	}
	return differ == 0;
}

static int check_crypt(const char *hash, const char *password)
{
	struct crypt_data *data = calloc(1, sizeof(*data));
	const char *found;
	int rc = -EACCES;

	if (data == NULL) {
		return -ENOMEM;
	}
	found = crypt_r(password, hash, data);
	if (found != NULL && found[0] == '$' && same(found, hash)) {
		rc = 0;
	}
	explicit_bzero(data, sizeof(*data));
	free(data);
	return rc;
}

static int check_hash(const char *hash, const char *password)
{
	int rc;

	if (strncmp(hash, ARGON2ID, strlen(ARGON2ID)) == 0) {
		rc = argon2id_verify(hash, password, strlen(password));
		return rc == ARGON2_OK                        ? 0
		       : rc == ARGON2_MEMORY_ALLOCATION_ERROR ? -ENOMEM
							      : -EACCES;
	}
	/* Older ways to hash, and accounts without a password, are none. */
	return hash[0] == '$' ? check_crypt(hash, password) : -EACCES;
}

/* The field binding=NAME among those behind the hash; what is too long for one is cut. */
static void read_binding(char *fields, char binding[ENVELOPE_BINDING_MAX + 1])
{
	char *field;

	binding[0] = '\0';
	fields[strcspn(fields, "\r\n")] = '\0';
	while ((field = strsep(&fields, ":")) != NULL) {
		if (strncmp(field, BINDING, strlen(BINDING)) == 0) {
			snprintf(binding, ENVELOPE_BINDING_MAX + 1, "%s", field + strlen(BINDING));
			return;
		}
	}
}

/* The hash in a line of `user`'s, within the line; NULL: it is another one's. */
static char *hash_of(char *line, const char *user, char binding[ENVELOPE_BINDING_MAX + 1])
{
	size_t len = strlen(user);
	char *hash;

	if (line[0] == '#' || len == 0 || user[strcspn(user, ":\r\n")] != '\0' ||
	    strncmp(line, user, len) != 0 || line[len] != ':') {
		return NULL;
	}
	hash = line + len + 1;
	binding[0] = '\0';
	len = strcspn(hash, ":\r\n");
	if (hash[len] == ':') {
		read_binding(hash + len + 1, binding);
	}
	hash[len] = '\0';
	return hash;
}

/* The next line; false at the end. What is too long becomes an empty one. */
static bool next_line(FILE *file, char line[PASSWORD_FILE_LINE_MAX])
{
	int c;

	if (fgets(line, PASSWORD_FILE_LINE_MAX, file) == NULL) {
		return false;
	}
	if (strchr(line, '\n') == NULL && !feof(file)) {
		line[0] = '\0';
		do {
			c = getc(file);
		} while (c != '\n' && c != EOF);
	}
	return true;
}

int password_file_check(const char *path, const char *user, const char *password,
			char binding[ENVELOPE_BINDING_MAX + 1])
{
	FILE *file = fopen(path, "re");
	char line[PASSWORD_FILE_LINE_MAX];
	char *hash = NULL;
	int rc;

	binding[0] = '\0';
	if (file == NULL) {
		return errno == EACCES ? -EPERM : -errno;
	}
	while (hash == NULL && next_line(file, line)) {
		hash = hash_of(line, user, binding);
	}
	rc = ferror(file) ? -EIO : 0;
	fclose(file);
	if (rc == 0) {
		rc = hash != NULL ? check_hash(hash, password) : check_crypt(NO_USER, password);
	}
	explicit_bzero(line, sizeof(line));
	return rc;
}
