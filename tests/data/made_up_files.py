"""Small made-up files in the layout of each data set."""

import csv
import os

import numpy as np
import PIL.Image

OFFICE_DOMAINS = ('amazon', 'caltech10', 'dslr', 'webcam')
LESIONS = ('akiec', 'bcc', 'bkl', 'df', 'mel', 'nv', 'vasc')


def image(path, color, size=(10, 6)):
  """Writes an image of one color, after making its folder."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  PIL.Image.new('RGB', size, color).save(path)


def domain_folder(
  path, domains=OFFICE_DOMAINS, classes=('bike', 'mug'), images=3
):
  """Writes `<domain>/<class>/<image>`; red is the domain, green the class."""
  for domain, domain_name in enumerate(domains):
    for label, class_name in enumerate(classes):
      for index in range(images):
        file = os.path.join(path, domain_name, class_name, f'{index}.png')
        image(file, (10 * domain, 10 * label, index))
  return str(path)


def image_folder(path, classes=('cat', 'dog'), images=3):
  """Writes `<class>/<image>`; red is the class."""
  for label, class_name in enumerate(classes):
    for index in range(images):
      image(
        os.path.join(path, class_name, f'{index}.png'), (200 * label, 0, index)
      )
  return str(path)


def tiny_imagenet(path, wnids=('n01', 'n02', 'n03'), images=4, validation=2):
  """Writes the original layout; red is the class, blue says validation."""
  rows = []
  for label, wnid in enumerate(wnids):
    for index in range(images):
      name = f'{wnid}_{index}.JPEG'
      file = os.path.join(path, 'train', wnid, 'images', name)
      image(file, (80 * label, 0, 0), (64, 64))
    boxes = os.path.join(path, 'train', wnid, f'{wnid}_boxes.txt')
    with open(boxes, 'w') as file:
      file.write(f'{wnid}_0.JPEG\t0\t0\t63\t63\n')
  for index in range(validation * len(wnids)):
    # Neighbours differ in class.
    label = index % len(wnids)
    name = f'val_{index}.JPEG'
    file = os.path.join(path, 'val', 'images', name)
    image(file, (80 * label, 0, 200), (64, 64))
    rows.append(f'{name}\t{wnids[label]}\t0\t0\t63\t63\n')
  with open(os.path.join(path, 'val', 'val_annotations.txt'), 'w') as file:
    file.writelines(rows)
  image(os.path.join(path, 'test', 'images', 'test_0.JPEG'), (0, 0, 0))
  return str(path)


def ham10000(path, images=14):
  """Writes a table and its images in two folders; red is the class."""
  rows = []
  for index in range(images):
    label = index % len(LESIONS)
    image_id = f'ISIC_{index:07d}'
    part = f'HAM10000_images_part_{1 + (index >= images // 2)}'
    file = os.path.join(path, part, f'{image_id}.jpg')
    image(file, (30 * label, 0, 0), (60, 45))
    rows.append([f'HAM_{index // 2}', image_id, LESIONS[label], 'histo'])
  with open(os.path.join(path, 'HAM10000_metadata.csv'), 'w') as file:
    writer = csv.writer(file)
    writer.writerow(['lesion_id', 'image_id', 'dx', 'dx_type'])
    writer.writerows(rows)
  return str(path)


def npz(path, images=60, classes=3, shape=(6, 6, 3), num_train=None):
  """Writes arrays `x`, `y` (and `num_train`)."""
  rng = np.random.default_rng(0)
  arrays = dict(
    x=rng.integers(0, 256, (images, *shape)).astype(np.uint8),
    y=np.arange(images) % classes,
  )
  if num_train is not None:
    arrays['num_train'] = num_train
  np.savez(path, **arrays)
  return str(path)
